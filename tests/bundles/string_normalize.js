// expect: AppError MemoryLimit CpuLimit
export function main() { for (;;) "\u0344\u1e9b\u0323".repeat(1e6).normalize("NFKD").normalize("NFC"); }
