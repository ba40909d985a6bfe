// expect: CpuLimit
export const main = () => /^(a+)+$/.test("a".repeat(60) + "b");
