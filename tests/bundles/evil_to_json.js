// expect: CpuLimit
export const main = () => ({ toJSON() { for (;;); } });
