// expect: CpuLimit AppError MemoryLimit
const wide = { length: 2 ** 53 - 1, [Symbol.isConcatSpreadable]: true };
export const main = () => [].concat(wide).length;
