// expect: CpuLimit
export async function main() { for (;;) await null; }
