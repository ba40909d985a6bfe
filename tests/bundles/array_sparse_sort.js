// expect: CpuLimit AppError MemoryLimit
export function main() { const wide = []; wide.length = 2 ** 32 - 1; wide[7] = 1; wide.sort(); return wide.reverse().length; }
