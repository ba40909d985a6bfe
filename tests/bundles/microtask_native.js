// expect: CpuLimit
// Adopting a thenable that gives itself: no line of the app's runs long.
const thenable = { then(resolve) { resolve(thenable); } };
export const main = () => thenable;
