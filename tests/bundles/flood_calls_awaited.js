// expect: QuotaExceeded
export async function main(ctx) { for (;;) await ctx.storage.count("x"); }
