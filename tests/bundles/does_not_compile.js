// expect: AppError
export function main() {
  const half = ;
}
