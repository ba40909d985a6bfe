// expect: CpuLimit AppError MemoryLimit
export const main = () => Array.prototype.copyWithin.call({ length: 2 ** 53 - 1 }, 1, 2);
