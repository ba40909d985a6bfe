// expect: AppError MemoryLimit CpuLimit
export function main() { const ring = []; ring.push(ring, ring); return ring.flat(Infinity).length; }
