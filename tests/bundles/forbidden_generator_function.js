// expect: AppError
export const main = () => [...(async function* () {}).constructor("yield 1")()];
