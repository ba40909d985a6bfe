// @ts-check
/** The app of the fleet's test: an action that takes a moment and leaves a row, so that one lost or done twice is seen. */

/** @param {any} ctx @param {{ mark: string, turns?: number }} input */
export async function mark(ctx, { mark, turns = 0 }) {
  let sum = 0;
  for (let i = 0; i < turns; i++) sum = (sum * 31 + i) % 1000003;
  await ctx.storage.insert("marks", { mark });
  return { mark, sum };
}
