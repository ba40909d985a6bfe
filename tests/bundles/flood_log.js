// expect: CpuLimit
export function main(ctx) { for (;;) ctx.log("line", { wide: "x".repeat(1000) }); }
