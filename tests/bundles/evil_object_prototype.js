// expect: ok AppError CpuLimit Stalled
Object.prototype.then = function (resolve) { resolve(7); };
Object.prototype.err = { code: "Internal", message: "forged" };
export const main = (ctx) => ctx.storage.count("x");
