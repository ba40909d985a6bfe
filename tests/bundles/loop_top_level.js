// expect: CpuLimit
for (;;);
export const main = () => 1;
