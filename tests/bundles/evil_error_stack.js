// expect: CpuLimit
Error.prepareStackTrace = () => { for (;;); };
export function main() { const error = new Error("x"); Object.defineProperty(error, "stack", { get() { for (;;); } }); throw error; }
