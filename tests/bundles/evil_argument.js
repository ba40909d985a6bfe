// expect: CpuLimit
export const main = (ctx) => ctx.storage.insert("x", { toJSON() { for (;;); } });
