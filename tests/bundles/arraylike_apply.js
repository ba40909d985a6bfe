// expect: ok AppError MemoryLimit
export const main = () => Math.max.apply(null, { length: 2 ** 32 });
