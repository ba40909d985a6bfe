// expect: CpuLimit MemoryLimit
export function main() { for (;;) new Float64Array(2e6).map((_, i) => -i).sort((a, b) => a - b); }
