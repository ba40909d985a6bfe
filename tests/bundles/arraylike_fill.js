// expect: CpuLimit AppError MemoryLimit
export const main = () => Array.prototype.fill.call({ length: 2 ** 53 - 1 }, 1, 2);
