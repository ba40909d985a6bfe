// expect: CpuLimit
export const main = () => ({ then() { for (;;); } });
