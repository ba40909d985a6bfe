// expect: CpuLimit AppError
export const main = () => /(?:(x+x+)+y|\1){2,}z/.test("x".repeat(200));
