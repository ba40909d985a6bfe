// expect: CpuLimit
export const main = () => new Float64Array(1000).sort(() => { for (;;); }).length;
