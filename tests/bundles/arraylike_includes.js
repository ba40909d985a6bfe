// expect: CpuLimit AppError MemoryLimit
export const main = () => Array.prototype.includes.call({ length: 2 ** 53 - 1 }, 1, 2);
