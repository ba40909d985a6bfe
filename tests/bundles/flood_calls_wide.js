// expect: QuotaExceeded
// limits: cpu_ms=2000
export const main = (ctx) => Promise.all([1, 2, 3].map(() => ctx.storage.insert("x", { text: "y".repeat(600_000) })));
