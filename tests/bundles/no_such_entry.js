// expect: NotFound
export const other = () => 1;
