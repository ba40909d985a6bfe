// expect: CpuLimit
export function main() { throw new Proxy({}, { getPrototypeOf() { for (;;); } }); }
