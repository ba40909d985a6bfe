// expect: AppError MemoryLimit CpuLimit
export function main() { throw new Error("x".repeat(1 << 23)); }
