// expect: CpuLimit
const again = () => queueMicrotask(again);
export async function main() { again(); await new Promise(() => {}); }
