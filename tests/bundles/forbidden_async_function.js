// expect: AppError
export const main = () => (async () => {}).constructor("return 1")();
