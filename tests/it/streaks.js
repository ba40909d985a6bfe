// Joined to the habit tracker's app.js by tests/it/streaks.rs: runs its streak arithmetic over many histories in one pass, and
// its actions over tables in memory, so that thousands of actions take a second.

export function streaks_of(ctx, cases) {
  return cases.map(({ rhythm, days, today }) => {
    const { streak, best_streak } = streak_of(rhythm, days, today);
    return [streak, best_streak];
  });
}

/** Lives a life of steps; tells after each what `log_habit` answered and what the lists say. */
export async function live(ctx, lives) {
  const told = [];
  for (const { rhythm, steps } of lives) told.push(await live_one(ctx, rhythm, steps));
  return told;
}

async function live_one(ctx, rhythm, steps) {
  const storage = new Memory();
  const habit = storage.insert("habits", {
    name: "Read", frequency: rhythm.frequency, weekly_target: rhythm.weekly_target,
    position: 0, active: true, started_on: "2020-01-01", settled: null,
  });
  const told = [];
  for (const { at, zone, week_start, act, day, completed, rhythm } of steps) {
    const today = ctx.time.day_of(at, zone);
    const world = { ...ctx, storage, user: { ...ctx.user, week_start }, today: () => today };
    const answer = act === "edit"
      ? await edit_habit(world, { habit_id: habit.id, ...asked(rhythm) })
      : await log_habit(world, { habit_id: habit.id, day, completed });
    storage.rows_read = 0;
    const [listed] = await list_streaks(world);
    const one = await calculate_streak(world, { habit_id: habit.id });
    const { done } = await get_today(world);
    told.push({
      today,
      logged: [answer.streak, answer.best_streak],
      listed: [listed.streak, listed.best_streak],
      one: [one.streak, one.best_streak],
      last: listed.last_completed_on,
      done_today: listed.done_today,
      done_in_get_today: done === 1,
      rows_read: storage.rows_read,
    });
  }
  return told;
}

/** Only a weekly rhythm may name a target. */
function asked({ frequency, weekly_target }) {
  return frequency === "weekly" ? { frequency, weekly_target } : { frequency };
}

/** As much of ctx.storage as the habit tracker uses; logs lie in the order in which it asks for them, newest first. */
class Memory {
  tables = { habits: [], habit_logs: [] };
  rows_read = 0;
  #ids = 0;

  find_one(table, { id }) {
    const found = this.tables[table].find((row) => row.id === id);
    return found ? { ...found } : null;
  }

  query(table, { where, limit, after }) {
    const rows = this.tables[table];
    const page = [];
    let at = Number(after ?? 0);
    for (; at < rows.length && page.length < limit; at += 1) if (fits(rows[at], where)) page.push({ ...rows[at] });
    this.rows_read += page.length;
    return Object.assign(page, { next: at < rows.length ? String(at) : undefined });
  }

  insert(table, row) {
    const rows = this.tables[table];
    const id = `${table} ${++this.#ids}`;
    const behind = rows.findIndex((other) => other.day <= row.day);
    if (behind >= 0 && rows[behind].day === row.day) throw new Error(`${row.day} is logged twice`);
    rows.splice(behind < 0 ? rows.length : behind, 0, { ...row, id });
    return { ...row, id };
  }

  update(table, id, changes) {
    Object.assign(this.tables[table].find((row) => row.id === id), JSON.parse(JSON.stringify(changes)));
  }

  delete(table, id) {
    this.tables[table] = this.tables[table].filter((row) => row.id !== id);
  }
}

function fits(row, where) {
  for (const column in where) {
    const wanted = where[column];
    if (column === "any") {
      if (!wanted.some((one) => fits(row, one))) return false;
    } else if (typeof wanted !== "object") {
      if (row[column] !== wanted) return false;
    } else if (row[column] < (wanted.gte ?? "") || row[column] > (wanted.lte ?? "9")) {
      return false;
    }
  }
  return true;
}
