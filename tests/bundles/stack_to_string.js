// expect: AppError CpuLimit
export function main() { const own = { toString() { return `${own}`; } }; return String(own); }
