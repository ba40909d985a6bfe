// expect: CpuLimit
// A busy wait: time stands still in a handler.
export function main() { const end = Date.now() + 1; while (Date.now() < end); }
