// expect: CpuLimit MemoryLimit AppError
export const main = () => (3n ** 900000n).toString().length;
