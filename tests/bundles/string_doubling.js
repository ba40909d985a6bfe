// expect: AppError MemoryLimit CpuLimit
export function main() { let text = "x"; for (;;) text += text; }
