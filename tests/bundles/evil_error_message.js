// expect: CpuLimit
class Endless extends Error { get message() { for (;;); } }
export function main() { throw new Endless(); }
