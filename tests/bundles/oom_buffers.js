// expect: AppError MemoryLimit CpuLimit
export function main() { const kept = []; for (;;) kept.push(new ArrayBuffer(1 << 20)); }
