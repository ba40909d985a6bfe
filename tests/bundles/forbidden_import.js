// expect: AppError
import { readFileSync } from "fs";
export const main = () => readFileSync("/etc/passwd");
