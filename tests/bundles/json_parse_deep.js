// expect: AppError MemoryLimit CpuLimit
export const main = () => JSON.parse("[".repeat(4e6));
