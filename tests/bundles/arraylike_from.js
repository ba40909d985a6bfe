// expect: CpuLimit AppError MemoryLimit
export const main = () => Array.from({ length: 2 ** 32 - 1 }).length;
