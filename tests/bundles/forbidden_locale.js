// expect: AppError
export const main = () => new Date().toLocaleString("de-DE", { timeZone: "Europe/Berlin" });
