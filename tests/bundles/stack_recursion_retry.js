// expect: CpuLimit
const deeper = () => { try { deeper(); } catch { deeper(); } };
export const main = () => deeper();
