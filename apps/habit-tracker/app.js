// @ts-check
/// <reference path="../krilin.d.ts" />
/// <reference path="./krilin.gen.d.ts" />
/**
 * Habit Tracker: small routines, their streaks, and the days that slip.
 *
 * Three parts: the actions, what they read, and the arithmetic, which is pure.
 *
 * A streak is a run of kept periods. A period is a local calendar day (daily), a day from Monday to Friday (weekdays) or a
 * week (weekly); periods are numbered so that neighbours differ by one, and all rhythms share one arithmetic. The current
 * period counts once it is kept, and its absence breaks nothing before it is over. README.md has the rules in words.
 *
 * A log stores the user's local day as a date, never an instant: neither daylight saving nor a change of zone moves it.
 *
 * An action reads the newest logs of a habit, not all. What older logs come to is kept in `habits.settled`; an action that
 * changes a settled day, or finds more than a page of logs since, reads as far back as it must and settles anew. So a
 * streak of any length is exact and costs the same to read.
 */

/** @typedef {krilin.Context<Tables, Settings>} Ctx */
/** @typedef {Tables["habits"]} Habit */
/** @typedef {"monday" | "sunday"} WeekStart */
/** @typedef {{ frequency: string, weekly_target: number, week_start: WeekStart }} Rhythm */
/** @typedef {{ last: number, length: number, best: number }} Run  `last`: the newest kept period; `length`: of the run that ends there. */
/** @typedef {Run & { rhythm?: string, before: krilin.IsoDate, day: krilin.IsoDate | null }} Past  All that lies before the day `before`; `day` is its newest log. */
/** @typedef {{ id: string, day: krilin.IsoDate }} Log */

/** Active habits a user may have: one `where` can name the settled past of each. */
const MAX_ACTIVE = 50;
/** Logs read at first; this many since the settled past, and an action settles again. */
const PAGE = 40;
/** Rows of a further page: the platform's maximum. */
const FULL_PAGE = 1000;
/** Days that are never settled, because people log late and travel. */
const OPEN_DAYS = 14;
/** How far back a day may be logged. */
const MAX_BACK_FILL_DAYS = 3653;
/** Names a refusal lists. */
const MAX_CANDIDATES = 10;
/** Streaks worth a word. */
const MILESTONES = new Set([7, 14, 30, 50, 100, 200, 365, 500, 730, 1000]);
/** What nothing comes to. @type {Past} */
const NO_PAST = { before: "", day: null, last: 0, length: 0, best: 0 };

// Actions

/** @param {Ctx} ctx @param {{ due_only?: boolean, include_archived?: boolean }} input */
export async function get_habits(ctx, input) {
  const [{ habits, progress }, archived] = await Promise.all([
    active_with_progress(ctx),
    input.include_archived ? archived_habits(ctx) : undefined,
  ]);
  const rows = habits.map((habit, i) => ({ ...facts(habit), ...progress[i] }));
  const shown = input.due_only ? rows.filter((row) => row.due_today && !row.done_today) : rows;
  return { habits: shown, count: shown.length, names: shown.map((row) => row.name).join(", "), archived };
}

/** @param {Ctx} ctx */
export async function get_today(ctx) {
  const today = ctx.today();
  const week_start = ctx.user.week_start;
  const [habits, logs] = await Promise.all([
    active_habits(ctx),
    read_logs(ctx, { day: { gte: start_of_week(today, week_start), lte: today } }),
  ]);
  const days = days_by_habit(logs);
  const due = habits
    .map((habit) => week_so_far(rhythm_of(habit, week_start), days.get(habit.id) ?? [], today))
    .filter((week) => week.due_today);
  const done = due.filter((week) => week.done_today).length;
  return { day: today, due: due.length, done, rate: due.length === 0 ? 1 : done / due.length };
}

/** @param {Ctx} ctx */
export async function list_streaks(ctx) {
  const { habits, progress } = await active_with_progress(ctx);
  return habits.map((habit, i) => {
    const { streak, best_streak, done_today, last_completed_on } = progress[i];
    return { habit_id: habit.id, habit_name: habit.name, streak, best_streak, done_today, last_completed_on };
  });
}

/** @param {Ctx} ctx @param {{ habit_id: string }} input */
export async function calculate_streak(ctx, { habit_id }) {
  const { habit, rhythm, past, logs } = await open(ctx, habit_id);
  const { streak, best_streak, last_completed_on } = streak_of(rhythm, days_of(logs), ctx.today(), past);
  return { habit_id, habit_name: habit.name, streak, best_streak, last_completed_on };
}

/** @param {Ctx} ctx @param {{ weeks?: number }} input */
export async function summarize_weeks(ctx, { weeks = 12 }) {
  const starts = weeks_until(ctx.today(), weeks, ctx.user.week_start);
  const habits = await active_habits(ctx);
  const counts = await ctx.storage.aggregate("habit_logs", {
    where: { habit_id: { in: habits.map((habit) => habit.id) }, day: { gte: starts[0], lte: ctx.today() } },
    group_by: ["habit_id", { bucket: "week", of: "day" }],
    count: true,
    limit: FULL_PAGE,
  });
  const done = new Map(counts.map((row) => [`${row.habit_id} ${row.week}`, Number(row.count)]));
  return habits.flatMap((habit) => {
    const all = starts.map((week) => ({ week, done: done.get(`${habit.id} ${week}`) ?? 0 }));
    const first = all.findIndex((row) => row.done > 0 || habit.started_on < day_plus(row.week, 7));
    return all.slice(first).map((row) => ({ habit_id: habit.id, habit_name: habit.name, ...row, due: due_in_week(habit) }));
  });
}

/** @param {Ctx} ctx @param {{ name: string, frequency?: Habit["frequency"], weekly_target?: number, cue?: string, color?: string }} input */
export async function create_habit(ctx, input) {
  const name = clean_name(ctx, input.name);
  if (input.weekly_target !== undefined && input.frequency !== "weekly") {
    ctx.fail("A weekly target needs the frequency weekly.");
  }
  const habits = await active_habits(ctx);
  refuse_clash(ctx, habits, name);
  const habit = await ctx.storage.insert("habits", { ...input, name, position: next_position(habits) });
  return { habit_id: habit.id, habit_name: name };
}

/** @param {Ctx} ctx @param {{ habit_id: string, name?: string, frequency?: Habit["frequency"], weekly_target?: number, cue?: string | null, color?: string }} input */
export async function edit_habit(ctx, { habit_id, ...changes }) {
  const [{ habit, rhythm, past, logs }, habits] = await Promise.all([open(ctx, habit_id), active_habits(ctx)]);
  if (changes.name !== undefined) {
    changes.name = clean_name(ctx, changes.name);
    if (habit.active) refuse_clash(ctx, habits.filter((other) => other.id !== habit_id), changes.name);
  }
  const edited = { ...habit, ...changes };
  if (changes.weekly_target !== undefined && edited.frequency !== "weekly") {
    ctx.fail("A weekly target needs the frequency weekly.");
  }
  const today = ctx.today();
  const new_rhythm = rhythm_of(edited, ctx.user.week_start);
  const same = rhythm_name(new_rhythm) === rhythm_name(rhythm);
  const all = same ? logs : await read_back(ctx, habit_id, logs, NO_PAST);
  const new_past = same ? past : settle(new_rhythm, days_of(all), today, NO_PAST);
  await ctx.storage.update("habits", habit_id, { ...changes, settled: stored(new_past) });
  const { streak, best_streak } = streak_of(new_rhythm, days_of(all), today, new_past);
  return { habit_id, habit_name: edited.name, streak, best_streak };
}

/** @param {Ctx} ctx @param {{ habit_id: string, day?: krilin.IsoDate, completed?: boolean, note?: string, mood?: number }} input */
export async function log_habit(ctx, { habit_id, ...log }) {
  return check(ctx, await open(ctx, habit_id), log);
}

/** @param {Ctx} ctx @param {{ habit: string, day?: krilin.IsoDate, completed?: boolean }} input */
export async function log_by_name(ctx, { habit, ...log }) {
  const habits = await active_habits(ctx);
  const found = match_name(habits, habit);
  if (found.length !== 1) ctx.fail(which_one(habit, found, habits));
  return check(ctx, await open(ctx, found[0].id), log);
}

/** @param {Ctx} ctx @param {{ habit_id: string }} input */
export async function archive_habit(ctx, { habit_id }) {
  const habit = await find(ctx, habit_id);
  const archived_on = habit.archived_on ?? ctx.today();
  if (habit.active) await ctx.storage.update("habits", habit_id, { active: false, archived_on });
  return { habit_id, habit_name: habit.name, archived_on };
}

/** @param {Ctx} ctx @param {{ habit_id: string }} input */
export async function restore_habit(ctx, { habit_id }) {
  const [habit, habits] = await Promise.all([find(ctx, habit_id), active_habits(ctx)]);
  if (!habit.active) {
    refuse_clash(ctx, habits, habit.name);
    await ctx.storage.update("habits", habit_id, { active: true, archived_on: null, position: next_position(habits) });
  }
  return { habit_id, habit_name: habit.name };
}

/** @param {Ctx} ctx @param {{ habit_id: string }} input */
export async function delete_habit(ctx, { habit_id }) {
  const [habit, logs_deleted] = await Promise.all([find(ctx, habit_id), ctx.storage.count("habit_logs", { habit_id })]);
  await ctx.storage.delete("habits", habit_id);
  return { habit_name: habit.name, logs_deleted };
}

/** @param {Ctx} ctx @param {{ ids: string[] }} input */
export async function reorder(ctx, { ids }) {
  const habits = await active_habits(ctx);
  const known = new Set(habits.map((habit) => habit.id));
  if (!ids.every((id) => known.has(id))) ctx.fail("One of these habits does not exist or is archived.");
  const order = [...new Set([...ids, ...known])];
  const moved = habits.filter((habit) => habit.position !== order.indexOf(habit.id));
  await Promise.all(moved.map((habit) => ctx.storage.update("habits", habit.id, { position: order.indexOf(habit.id) })));
  return { ids: order };
}

/** @param {Ctx} ctx */
export async function seed(ctx) {
  if ((await ctx.storage.count("habits")) > 0) return { created: 0 };
  const { count } = await ctx.storage.insert_many("habits", [
    { name: "Read ten pages", cue: "After dinner", color: "violet", position: 0 },
    { name: "Plan the day", cue: "With the first coffee", frequency: "weekdays", color: "blue", position: 1 },
    { name: "Move for half an hour", frequency: "weekly", weekly_target: 3, color: "green", position: 2 },
  ]);
  return { created: count };
}

// What the actions share

/** @typedef {{ habit: Habit, rhythm: Rhythm, past: Past, logs: Log[] }} Opened */

/**
 * Logs or unlogs a day. The installation's row is locked while an action runs, so what was read still holds.
 * @param {Ctx} ctx @param {Opened} opened @param {{ day?: krilin.IsoDate, completed?: boolean, note?: string, mood?: number }} log
 */
async function check(ctx, { habit, rhythm, past, logs: newest }, { day, completed = true, ...words }) {
  const today = ctx.today();
  day ??= today;
  if (!habit.active) ctx.fail(`“${habit.name}” is archived. Restore it first.`);
  refuse_day(ctx, day, today, completed);

  const still_past = day < past.before ? NO_PAST : past;
  const logs = await read_back(ctx, habit.id, newest, still_past);
  const log = logs.find((log) => log.day === day);
  const changed = completed !== Boolean(log);
  const days = days_of(logs).filter((other) => other !== day).concat(completed ? [day] : []).sort();
  const new_past = changed ? settle(rhythm, days, today, still_past) : past;

  const { storage } = ctx;
  await Promise.all([
    log && !completed && storage.delete("habit_logs", log.id),
    log && completed && Object.keys(words).length > 0 && storage.update("habit_logs", log.id, words),
    !log && completed && storage.insert("habit_logs", { habit_id: habit.id, day, ...words }),
    stored(new_past) !== habit.settled && storage.update("habits", habit.id, { settled: stored(new_past) }),
  ]);
  const { streak, best_streak } = streak_of(rhythm, days, today, new_past);
  const milestone = changed && completed && MILESTONES.has(streak);
  return { habit_id: habit.id, habit_name: habit.name, day, completed, changed, streak, best_streak, milestone };
}

/** @param {Ctx} ctx @param {string} day @param {krilin.IsoDate} today @param {boolean} completed */
function refuse_day(ctx, day, today, completed) {
  if (!is_day(day)) ctx.fail(`“${day}” is not a day. Write it like ${today}.`);
  if (completed && day > today) ctx.fail(`${day} has not begun yet; today is ${today}.`);
  const earliest = day_plus(today, -MAX_BACK_FILL_DAYS);
  if (day < earliest) ctx.fail(`${day} is too long ago. Days since ${earliest} can be logged.`);
}

/** @param {Ctx} ctx @param {Habit[]} active @param {string} name */
function refuse_clash(ctx, active, name) {
  if (active.length >= MAX_ACTIVE) ctx.fail(`${MAX_ACTIVE} habits are active. Archive one first.`);
  const other = active.find((habit) => folded(habit.name) === folded(name));
  if (other) ctx.fail(`“${other.name}” is already one of your habits.`);
}

/** @param {Ctx} ctx @param {string} name */
function clean_name(ctx, name) {
  return name.trim().replace(/\s+/g, " ") || ctx.fail("A habit needs a name.");
}

// What the actions read

/** A habit with its logs, newest first, back to its settled past. @param {Ctx} ctx @param {string} habit_id @returns {Promise<Opened>} */
async function open(ctx, habit_id) {
  const [habit, newest] = await Promise.all([find(ctx, habit_id), newest_logs(ctx, habit_id, { limit: PAGE })]);
  const rhythm = rhythm_of(habit, ctx.user.week_start);
  const past = past_of(habit, rhythm);
  return { habit, rhythm, past, logs: await read_back(ctx, habit_id, newest, past) };
}

/** `logs`, and older ones until the day `past.before` is passed or none is left. @param {Ctx} ctx @param {string} habit_id @param {Log[] & { next?: string }} logs @param {Past} past */
async function read_back(ctx, habit_id, logs, past) {
  while (logs.next && logs[logs.length - 1].day >= past.before) {
    const older = await newest_logs(ctx, habit_id, { limit: FULL_PAGE, after: logs.next });
    logs = Object.assign([...logs, ...older], { next: older.next });
  }
  return logs;
}

/** @param {Ctx} ctx @param {string} habit_id @param {{ limit: number, after?: string }} page */
function newest_logs(ctx, habit_id, page) {
  return ctx.storage.query("habit_logs", { where: { habit_id }, order_by: { day: "desc" }, select: ["id", "day"], ...page });
}

/** @param {Ctx} ctx @param {string} id @returns {Promise<Habit>} */
async function find(ctx, id) {
  return (await ctx.storage.find_one("habits", { id })) ?? ctx.fail("There is no such habit.");
}

/** @param {Ctx} ctx @returns {Promise<Habit[]>} */
function active_habits(ctx) {
  return ctx.storage.query("habits", { where: { active: true }, order_by: { position: "asc" }, limit: MAX_ACTIVE });
}

/** @param {Ctx} ctx */
async function archived_habits(ctx) {
  const rows = await ctx.storage.query("habits", { where: { active: false }, order_by: { archived_on: "desc" }, limit: FULL_PAGE });
  return rows.map((habit) => ({ ...facts(habit), archived_on: habit.archived_on }));
}

/** All active habits and what their logs come to: two reads, however many habits. @param {Ctx} ctx */
async function active_with_progress(ctx) {
  const today = ctx.today();
  const habits = await active_habits(ctx);
  const parts = habits.map((habit) => {
    const rhythm = rhythm_of(habit, ctx.user.week_start);
    return { habit, rhythm, past: past_of(habit, rhythm) };
  });
  const since = parts.map(({ habit, past }) => (past.before ? { habit_id: habit.id, day: { gte: past.before } } : { habit_id: habit.id }));
  const days = days_by_habit(habits.length === 0 ? [] : await read_logs(ctx, { any: since }));
  const progress = parts.map(({ habit, rhythm, past }) => {
    const done = days.get(habit.id) ?? [];
    return { ...streak_of(rhythm, done, today, past), ...week_so_far(rhythm, done, today) };
  });
  return { habits, progress };
}

/** Every log that fits, newest first. @param {Ctx} ctx @param {krilin.Where<Tables["habit_logs"]>} where */
async function read_logs(ctx, where) {
  const logs = [];
  /** @type {string | undefined} */
  let after;
  do {
    const page = await ctx.storage.query("habit_logs", {
      where, order_by: { day: "desc" }, select: ["habit_id", "day"], limit: FULL_PAGE, after,
    });
    logs.push(...page);
    after = page.next;
  } while (after);
  return logs;
}

/** @param {Habit} habit */
function facts({ id, name, frequency, weekly_target, cue, color, position, started_on }) {
  return { id, name, frequency, weekly_target, cue, color, position, started_on };
}

// Arithmetic of streaks

/** @param {{ frequency: string, weekly_target: number }} habit @param {WeekStart} week_start @returns {Rhythm} */
export function rhythm_of({ frequency, weekly_target }, week_start) {
  return { frequency, weekly_target, week_start };
}

/**
 * The streak as of `today`.
 * @param {Rhythm} rhythm @param {krilin.IsoDate[]} days done, ascending, each once; those after today do not count yet
 * @param {krilin.IsoDate} today @param {Past} past
 */
export function streak_of(rhythm, days, today, past = NO_PAST) {
  const open_days = days.filter((day) => day >= past.before && day <= today);
  const run = extend(past, kept_periods(rhythm, open_days));
  const alive = run.last >= period(rhythm, today) - 1;
  return { streak: alive ? run.length : 0, best_streak: run.best, last_completed_on: open_days.at(-1) ?? past.day };
}

/**
 * The past moved up to two weeks before `today`, once the days since fill a page; else as it was.
 * @param {Rhythm} rhythm @param {krilin.IsoDate[]} days ascending @param {krilin.IsoDate} today @param {Past} past @returns {Past}
 */
export function settle(rhythm, days, today, past = NO_PAST) {
  const since = days.filter((day) => day >= past.before);
  if (since.length < PAGE) return past;
  const before = start_of_week(day_plus(today, -OPEN_DAYS), rhythm.week_start);
  const settled = since.filter((day) => day < before);
  const { last, length, best } = extend(past, kept_periods(rhythm, settled));
  return { rhythm: rhythm_name(rhythm), before, day: settled.at(-1) ?? past.day, last, length, best };
}

/** @param {Run} run @param {number[]} periods ascending, all after `run.last` @returns {Run} */
function extend({ last, length, best }, periods) {
  for (const next of periods) {
    length = next === last + 1 ? length + 1 : 1;
    best = Math.max(best, length);
    last = next;
  }
  return { last, length, best };
}

/** The periods in which enough of `days` lie, ascending. @param {Rhythm} rhythm @param {krilin.IsoDate[]} days ascending */
function kept_periods(rhythm, days) {
  const needed = rhythm.frequency === "weekly" ? rhythm.weekly_target : 1;
  const kept = [];
  let last = NaN, done = 0;
  for (const day of days) {
    if (!counts(rhythm, day)) continue;
    const n = period(rhythm, day);
    done = n === last ? done + 1 : 1;
    last = n;
    if (done === needed) kept.push(n);
  }
  return kept;
}

/** The number of the period that holds `day`; a weekend holds none of the weekdays' and gets the coming Monday's. @param {Rhythm} rhythm @param {krilin.IsoDate} day */
function period({ frequency, week_start }, day) {
  if (frequency === "weekly") return week_number(day, week_start);
  if (frequency === "weekdays") return week_number(day, "monday") * 5 + Math.min(weekday(day, "monday"), 5);
  return number(day);
}

/** @param {Rhythm} rhythm @param {krilin.IsoDate} day */
function counts({ frequency }, day) {
  return frequency !== "weekdays" || weekday(day, "monday") < 5;
}

/**
 * This week and today.
 * @param {Rhythm} rhythm @param {krilin.IsoDate[]} days ascending @param {krilin.IsoDate} today
 */
export function week_so_far(rhythm, days, today) {
  const done = new Set(days);
  const monday = start_of_week(today, rhythm.week_start);
  const week = Array.from({ length: 7 }, (_, i) => day_plus(monday, i)).map((day) => day <= today && done.has(day));
  const done_today = done.has(today);
  const done_before = week.filter(Boolean).length - Number(done_today);
  const due_today = rhythm.frequency === "weekly" ? done_before < rhythm.weekly_target : counts(rhythm, today);
  return { done_today, due_today, week };
}

/** @param {Rhythm} rhythm */
function rhythm_name({ frequency, weekly_target, week_start }) {
  return frequency === "weekly" ? `${weekly_target} a week from ${week_start}` : frequency;
}

/** The settled past, if it was settled by the rhythm that now holds. @param {Habit} habit @param {Rhythm} rhythm @returns {Past} */
function past_of(habit, rhythm) {
  const settled = /** @type {Past | null} */ (habit.settled);
  return settled?.rhythm === rhythm_name(rhythm) ? settled : NO_PAST;
}

/** @param {Past} past */
function stored(past) {
  return past === NO_PAST ? null : past;
}

/** @param {{ frequency: string, weekly_target: number }} habit */
function due_in_week({ frequency, weekly_target }) {
  return { daily: 7, weekdays: 5 }[frequency] ?? weekly_target;
}

/** @param {Log[]} logs newest first */
function days_of(logs) {
  return logs.map((log) => log.day).reverse();
}

/** @param {{ habit_id: string, day: krilin.IsoDate }[]} logs newest first @returns {Map<string, krilin.IsoDate[]>} ascending */
function days_by_habit(logs) {
  const days = new Map();
  for (const { habit_id, day } of logs.toReversed()) {
    if (!days.has(habit_id)) days.set(habit_id, []);
    days.get(habit_id).push(day);
  }
  return days;
}

/** @param {{ position: number }[]} habits */
function next_position(habits) {
  return Math.max(-1, ...habits.map((habit) => habit.position)) + 1;
}

// Names

/**
 * The habits that `text` may mean: the one of that name, else all whose name begins with it; case and spacing do not matter.
 * @template {{ name: string }} T @param {T[]} habits @param {string} text @returns {T[]}
 */
export function match_name(habits, text) {
  const exact = habits.filter((habit) => folded(habit.name) === folded(text));
  return exact.length > 0 ? exact : habits.filter((habit) => folded(habit.name).startsWith(folded(text)));
}

/** @param {string} text @param {{ name: string }[]} found @param {{ name: string }[]} habits */
function which_one(text, found, habits) {
  if (habits.length === 0) return "You have no habits yet. Create one first.";
  if (found.length === 0) return `No habit begins with “${text}”. You have ${listed(habits)}.`;
  return `“${text}” may be ${listed(found)}. Say more of the name.`;
}

/** @param {{ name: string }[]} habits */
function listed(habits) {
  const names = habits.slice(0, MAX_CANDIDATES).map((habit) => `“${habit.name}”`);
  return names.join(", ") + (habits.length > MAX_CANDIDATES ? `, and ${habits.length - MAX_CANDIDATES} more` : "");
}

/** @param {string} text */
function folded(text) {
  return text.normalize("NFC").trim().replace(/\s+/g, " ").toLowerCase();
}

// Days: `2026-11-22`, so that text order is time order

const MS_PER_DAY = 86_400_000;

/** @param {string} text */
export function is_day(text) {
  return /^\d{4}-\d\d-\d\d$/.test(text) && Number.isFinite(Date.parse(text)) && day_plus(text, 0) === text;
}

/** Days since 1970-01-01. @param {krilin.IsoDate} day */
function number(day) {
  return Date.parse(day) / MS_PER_DAY;
}

/** @param {krilin.IsoDate} day @param {number} count */
export function day_plus(day, count) {
  return new Date((number(day) + count) * MS_PER_DAY).toISOString().slice(0, 10);
}

/** Days since the first day of a week that began before 1970: 1969-12-29 was a Monday. @param {krilin.IsoDate} day @param {WeekStart} week_start */
function week_days(day, week_start) {
  return number(day) + (week_start === "sunday" ? 4 : 3);
}

/** @param {krilin.IsoDate} day @param {WeekStart} week_start */
function week_number(day, week_start) {
  return Math.floor(week_days(day, week_start) / 7);
}

/** 0 is the first day of the week. @param {krilin.IsoDate} day @param {WeekStart} week_start */
function weekday(day, week_start) {
  return week_days(day, week_start) - week_number(day, week_start) * 7;
}

/** @param {krilin.IsoDate} day @param {WeekStart} week_start */
export function start_of_week(day, week_start) {
  return day_plus(day, -weekday(day, week_start));
}

/** The first days of the last `count` weeks, this one included, oldest first. @param {krilin.IsoDate} today @param {number} count @param {WeekStart} week_start */
function weeks_until(today, count, week_start) {
  const start = start_of_week(today, week_start);
  return Array.from({ length: count }, (_, i) => day_plus(start, (i + 1 - count) * 7));
}
