// expect: CpuLimit MemoryLimit
function* forever() { for (;;) yield {}; }
export const main = () => [...forever()].length;
