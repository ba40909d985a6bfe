// expect: CpuLimit
export const main = () => ({ get x() { for (;;); } });
