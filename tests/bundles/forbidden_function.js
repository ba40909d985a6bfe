// expect: AppError
export const main = () => (function () {}).constructor("return 1")();
