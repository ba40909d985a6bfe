// expect: MemoryLimit
// The engine throws null when there is no memory left for an error; an app that throws null looks the same.
export function main() { throw null; }
