// expect: AppError MemoryLimit CpuLimit
export function main() { let deep = []; for (let i = 0; i < 1e6; i += 1) deep = [deep]; return deep; }
