// expect: AppError
export const main = async () => (await import("krilin:prelude")).default;
