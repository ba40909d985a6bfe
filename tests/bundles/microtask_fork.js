// expect: CpuLimit MemoryLimit
const fork = () => { Promise.resolve().then(fork); Promise.resolve().then(fork); };
export async function main() { fork(); await new Promise(() => {}); }
