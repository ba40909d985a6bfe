// expect: CpuLimit MemoryLimit AppError
export function main() { let wide = 3n; for (;;) wide *= wide; }
