// expect: CpuLimit MemoryLimit
export function main() { let chain = () => 1; for (;;) { const inner = chain; chain = () => inner() + 1; } }
