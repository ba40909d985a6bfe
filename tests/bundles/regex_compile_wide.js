// expect: AppError MemoryLimit CpuLimit
export function main() { for (let n = 1; ; n *= 2) new RegExp("(?:" + "(a{1,50}){1,50}".repeat(n) + ")*"); }
