// expect: CpuLimit
export async function main() {
  for (;;) {
    try { for (;;); } catch { for (;;); } finally { for (;;); }
  }
}
