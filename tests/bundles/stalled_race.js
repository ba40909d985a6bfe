// expect: Stalled
export const main = () => Promise.race([]);
