// expect: CpuLimit ok
Object.defineProperty(Array.prototype, 0, { set() { for (;;); } });
export const main = (ctx) => ctx.storage.count("x");
