// expect: CpuLimit AppError MemoryLimit
export const main = () => Array.prototype.sort.call({ length: 2 ** 53 - 1 }, 1, 2);
