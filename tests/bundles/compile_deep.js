// expect: AppError MemoryLimit CpuLimit
// A source that nests as deep as a parser recurses is made by the test: {{deep}}
export const main = () => {{deep}};
