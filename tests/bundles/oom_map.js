// expect: MemoryLimit
// limits: cpu_ms=1000
export function main() { const kept = new Map(); for (let i = 0; ; i += 1) kept.set(i, { i }); }
