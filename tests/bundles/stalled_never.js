// expect: Stalled
export async function main() { await new Promise(() => {}); }
