// expect: QuotaExceeded
// limits: cpu_ms=2000
export const main = () => "x".repeat(2 << 20);
