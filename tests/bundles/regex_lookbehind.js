// expect: CpuLimit
export const main = () => /(?<=(a|aa|aaa)+)b$/.test("a".repeat(5000) + "c") || /^(?:(?:a?){60}a{60}){2}c/.test("a".repeat(130));
