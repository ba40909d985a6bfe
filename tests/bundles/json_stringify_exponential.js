// expect: CpuLimit MemoryLimit AppError
export function main() { let twins = [1]; for (let i = 0; i < 60; i += 1) twins = [twins, twins]; return twins; }
