// expect: ok
Promise.prototype.then = () => { for (;;); };
export const main = async (ctx) => (await ctx.storage.count("x")) ?? 1;
