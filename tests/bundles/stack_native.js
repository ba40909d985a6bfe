// expect: AppError MemoryLimit CpuLimit
export function main() {
  let trap = {};
  for (let i = 0; i < 1e6; i += 1) trap = new Proxy(trap, {});
  return trap.anything;
}
