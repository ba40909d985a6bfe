// expect: AppError MemoryLimit CpuLimit
export const main = () => Math.max(...new Array(1e7).fill(1));
