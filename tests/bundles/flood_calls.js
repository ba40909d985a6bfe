// expect: CpuLimit MemoryLimit QuotaExceeded
export function main(ctx) { for (;;) ctx.storage.count("x").catch(() => {}); }
