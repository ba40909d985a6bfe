// expect: AppError
const deeper = (n) => deeper(n + 1) + 1;
export const main = () => deeper(0);
