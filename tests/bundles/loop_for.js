// expect: CpuLimit
export function main() { for (;;); }
