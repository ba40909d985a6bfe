// expect: AppError MemoryLimit CpuLimit
export function main() { const kept = []; for (;;) kept.push("x".repeat(2 ** 22) + kept.length); }
