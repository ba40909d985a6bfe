// expect: CpuLimit MemoryLimit
const again = () => Promise.resolve().then(again);
export const main = () => again();
