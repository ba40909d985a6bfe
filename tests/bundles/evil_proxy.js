// expect: CpuLimit
export const main = () => new Proxy({}, { ownKeys() { for (;;); } });
