// expect: Stalled
export async function main(ctx) { await ctx.storage.count("x"); await new Promise(() => {}); }
