// expect: CpuLimit MemoryLimit
export function main() { const kept = []; for (;;) try { kept.push(new Array(1e5).fill(kept.length)); } catch {} }
