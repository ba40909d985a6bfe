// expect: CpuLimit AppError MemoryLimit
export const main = () => Array.prototype.join.call({ length: 2 ** 53 - 1 }, 1, 2);
