// The habit tracker's own tests. `krilin app test apps/habit-tracker` runs them: functions in the sandbox, cases as real
// actions for a new user each, on a real Postgres, at the instants they name.

import { day_plus, is_day, match_name, rhythm_of, settle, start_of_week, streak_of, week_so_far } from "./app.js";
import { equal } from "krilin:test";

const DAILY = rhythm_of({ frequency: "daily", weekly_target: 1 }, "monday");
const WEEKDAYS = rhythm_of({ frequency: "weekdays", weekly_target: 1 }, "monday");
const TWICE = rhythm_of({ frequency: "weekly", weekly_target: 2 }, "monday");

/** So many days that end on `last`. */
function run_of(count, last) {
  return Array.from({ length: count }, (_, i) => day_plus(last, i + 1 - count));
}

function streaks(rhythm, days, today) {
  const { streak, best_streak } = streak_of(rhythm, days, today);
  return [streak, best_streak];
}

export function test_a_day_breaks_nothing_before_it_is_over() {
  const days = run_of(5, "2026-11-20");
  equal(streaks(DAILY, days, "2026-11-20"), [5, 5]);
  equal(streaks(DAILY, days, "2026-11-21"), [5, 5]);
  equal(streaks(DAILY, days, "2026-11-22"), [0, 5]);
}

export function test_a_weekend_neither_breaks_nor_counts() {
  // 2026-11-20 is a Friday.
  const days = [...run_of(5, "2026-11-20"), "2026-11-21", "2026-11-22"];
  equal(streaks(WEEKDAYS, days, "2026-11-22"), [5, 5], "on Sunday");
  equal(streaks(WEEKDAYS, days, "2026-11-23"), [5, 5], "on Monday");
  equal(streaks(WEEKDAYS, [...days, "2026-11-23"], "2026-11-23"), [6, 6], "on Monday, done");
  equal(streaks(WEEKDAYS, days, "2026-11-24"), [0, 5], "on Tuesday");
  equal(streaks(WEEKDAYS, run_of(4, "2026-11-19"), "2026-11-21"), [0, 4], "Friday is over on Saturday");
}

export function test_a_week_counts_once_its_target_is_reached() {
  const days = ["2026-11-03", "2026-11-08", "2026-11-09", "2026-11-15", "2026-11-17"];
  equal(streaks(TWICE, days, "2026-11-17"), [2, 2], "this week is open");
  equal(streaks(TWICE, [...days, "2026-11-22"], "2026-11-22"), [3, 3], "this week is reached");
  equal(streaks(TWICE, days, "2026-11-23"), [0, 2], "last week was missed");
}

export function test_a_week_begins_where_the_user_says() {
  const days = ["2026-11-15", "2026-11-16"];
  equal(streaks({ ...TWICE, week_start: "sunday" }, days, "2026-11-16"), [1, 1]);
  equal(streaks(TWICE, days, "2026-11-16"), [0, 0]);
  equal(start_of_week("2026-11-22", "monday"), "2026-11-16");
  equal(start_of_week("2026-11-22", "sunday"), "2026-11-22");
}

export function test_days_after_today_wait_until_they_are_reached() {
  const days = run_of(3, "2026-11-22");
  equal(streaks(DAILY, days, "2026-11-21"), [2, 2]);
  equal(streaks(DAILY, days, "2026-11-22"), [3, 3]);
}

export function test_a_settled_past_changes_no_streak() {
  const today = "2026-11-22";
  const days = run_of(2000, today);
  const past = settle(DAILY, days, today);
  equal(past.before, "2026-11-02");
  equal(streak_of(DAILY, run_of(21, today), today, past), streak_of(DAILY, days, today));
}

export function test_a_weekly_habit_is_due_until_its_target_is_reached() {
  equal(week_so_far(TWICE, ["2026-11-16"], "2026-11-18").due_today, true);
  equal(week_so_far(TWICE, ["2026-11-16", "2026-11-17"], "2026-11-18").due_today, false);
  equal(week_so_far(TWICE, ["2026-11-16", "2026-11-18"], "2026-11-18"), {
    done_today: true, due_today: true, week: [true, false, true, false, false, false, false],
  });
}

export function test_names_match_in_any_case_and_the_whole_name_wins() {
  const habits = ["Run", "Run far", "Read", "  Zoë's  walk"].map((name) => ({ name }));
  const names = (text) => match_name(habits, text).map((habit) => habit.name);
  equal(names("RUN"), ["Run"]);
  equal(names("r"), ["Run", "Run far", "Read"]);
  equal(names("zoe\u0308's w"), ["  Zoë's  walk"]);
  equal(names("swim"), []);
}

export function test_only_days_of_the_calendar_are_days() {
  equal(["2028-02-29", "2026-02-29", "2026-13-01", "2026-1-1", "today", ""].map(is_day), [true, false, false, false, false, false]);
}

const read = { at: "2026-11-01T08:00:00Z", action: "create_habit", input: { name: "Read" }, save: "read" };
const log = (at, input = {}) => ({ at, action: "log_habit", input: { habit_id: "$read.habit_id", ...input } });

export const cases = [
  {
    name: "a day is logged once, however often it is sent",
    zone: "Europe/Berlin",
    steps: [
      read,
      { ...log("2026-11-22T17:00:00Z"), expect: { habit_name: "Read", day: "2026-11-22", changed: true, streak: 1, milestone: false } },
      { ...log("2026-11-22T17:00:01Z"), expect: { changed: false, completed: true, streak: 1 } },
      { ...log("2026-11-22T17:00:02Z", { note: "ten pages", mood: 4 }), expect: { changed: false, streak: 1 } },
      { ...log("2026-11-22T17:00:03Z", { completed: false }), expect: { changed: true, completed: false, streak: 0, best_streak: 0 } },
      { ...log("2026-11-22T17:00:04Z", { completed: false }), expect: { changed: false, streak: 0 } },
    ],
  },
  {
    name: "midnight is the user's, on both sides of daylight saving",
    zone: "Europe/Berlin",
    steps: [
      read,
      { ...log("2026-03-28T22:30:00Z"), expect: { day: "2026-03-28", streak: 1 } },
      { ...log("2026-03-28T23:30:00Z"), expect: { day: "2026-03-29", streak: 2 } },
      { ...log("2026-03-29T21:59:59Z"), expect: { day: "2026-03-29", streak: 2, changed: false } },
      { ...log("2026-03-29T22:00:00Z"), expect: { day: "2026-03-30", streak: 3 } },
      { ...log("2026-10-24T22:30:00Z"), expect: { day: "2026-10-25", streak: 1, best_streak: 3 } },
      { ...log("2026-10-25T22:59:59Z"), expect: { day: "2026-10-25", changed: false } },
      { ...log("2026-10-25T23:00:00Z"), expect: { day: "2026-10-26", streak: 2 } },
    ],
  },
  {
    name: "a late log mends a streak, an undone one breaks it, however long ago",
    steps: [
      read,
      { ...log("2026-01-01T12:00:00Z"), days: 200, expect: { streak: 200, best_streak: 200, milestone: true } },
      { ...log("2026-07-19T12:00:00Z", { day: "2026-02-10", completed: false }), expect: { streak: 159, best_streak: 159 } },
      { ...log("2026-07-19T12:00:00Z", { day: "2026-02-10" }), expect: { streak: 200, best_streak: 200 } },
      { ...log("2026-07-19T12:00:00Z", { day: "2025-12-31" }), expect: { streak: 201, best_streak: 201 } },
      { at: "2026-07-20T12:00:00Z", action: "calculate_streak", input: { habit_id: "$read.habit_id" }, expect: { streak: 201, best_streak: 201, last_completed_on: "2026-07-19" } },
      { at: "2026-07-21T12:00:00Z", action: "list_streaks", expect: [{ habit_name: "Read", streak: 0, best_streak: 201, done_today: false }] },
      { at: "2026-07-21T12:00:00Z", action: "edit_habit", input: { habit_id: "$read.habit_id", frequency: "weekly", weekly_target: 7 }, expect: { streak: 28, best_streak: 28 } },
    ],
  },
  {
    name: "days that cannot be logged are refused in words",
    zone: "Asia/Tokyo",
    steps: [
      read,
      { ...log("2026-11-22T17:00:00Z", { day: "2026-11-24" }), fails: "2026-11-24 has not begun yet; today is 2026-11-23." },
      { ...log("2026-11-22T17:00:00Z", { day: "2016-11-01" }), fails: "2016-11-01 is too long ago. Days since 2016-11-22 can be logged." },
      { ...log("2026-11-22T17:00:00Z", { day: "2026-02-30" }), fails: "" },
      { ...log("2026-11-22T17:00:00Z", { habit_id: "no such id" }), fails: "Refused: There is no such habit." },
      { ...log("2026-11-22T17:00:00Z", { mood: 6 }), fails: "ValidationFailed" },
    ],
  },
  {
    name: "a name finds its habit, and a doubtful one lists those it may be",
    steps: [
      { at: "2026-11-22T08:00:00Z", action: "log_by_name", input: { habit: "read" }, fails: "You have no habits yet." },
      read,
      { at: "2026-11-22T08:00:00Z", action: "create_habit", input: { name: "Reflect" } },
      { at: "2026-11-22T08:00:00Z", action: "create_habit", input: { name: " read " }, fails: "“Read” is already one of your habits." },
      { at: "2026-11-22T08:00:00Z", action: "log_by_name", input: { habit: "RE" }, fails: "“RE” may be “Read”, “Reflect”." },
      { at: "2026-11-22T08:00:00Z", action: "log_by_name", input: { habit: "swim" }, fails: "No habit begins with “swim”. You have “Read”, “Reflect”." },
      { at: "2026-11-22T08:00:00Z", action: "log_by_name", input: { habit: "ref" }, expect: { habit_name: "Reflect", streak: 1 } },
      { at: "2026-11-22T08:00:00Z", action: "get_habits", input: { due_only: true }, expect: { count: 1, names: "Read" } },
      { at: "2026-11-22T08:00:00Z", action: "get_today", expect: { day: "2026-11-22", due: 2, done: 1, rate: 0.5 } },
    ],
  },
  {
    name: "habits are put away, brought back, put in order and deleted with their logs",
    steps: [
      { at: "2026-11-20T08:00:00Z", action: "seed", expect: { created: 3 } },
      { at: "2026-11-20T08:00:00Z", action: "seed", expect: { created: 0 } },
      read,
      { ...log("2026-11-20T08:00:00Z"), expect: { streak: 1 } },
      { at: "2026-11-20T08:00:00Z", action: "reorder", input: { ids: ["$read.habit_id"] } },
      { at: "2026-11-20T08:00:00Z", action: "get_habits", expect: { count: 4, names: "Read, Read ten pages, Plan the day, Move for half an hour" } },
      { at: "2026-11-20T08:00:00Z", action: "reorder", input: { ids: ["no such id"] }, fails: "does not exist or is archived" },
      { at: "2026-11-20T08:00:00Z", action: "archive_habit", input: { habit_id: "$read.habit_id" }, expect: { archived_on: "2026-11-20" } },
      { at: "2026-11-21T08:00:00Z", action: "archive_habit", input: { habit_id: "$read.habit_id" }, expect: { archived_on: "2026-11-20" } },
      { ...log("2026-11-21T08:00:00Z"), fails: "“Read” is archived. Restore it first." },
      { at: "2026-11-21T08:00:00Z", action: "get_habits", input: { include_archived: true }, expect: { count: 3, archived: [{ name: "Read", archived_on: "2026-11-20" }] } },
      { at: "2026-11-21T08:00:00Z", action: "restore_habit", input: { habit_id: "$read.habit_id" } },
      { ...log("2026-11-21T08:00:00Z"), expect: { streak: 2 } },
      { at: "2026-11-21T08:00:00Z", action: "summarize_weeks", input: { weeks: 1 }, expect: [
        { habit_name: "Read ten pages", week: "2026-11-16", done: 0, due: 7 },
        { habit_name: "Plan the day", week: "2026-11-16", done: 0, due: 5 },
        { habit_name: "Move for half an hour", week: "2026-11-16", done: 0, due: 3 },
        { habit_name: "Read", week: "2026-11-16", done: 2, due: 7 },
      ] },
      { at: "2026-11-21T08:00:00Z", action: "delete_habit", input: { habit_id: "$read.habit_id" }, expect: { habit_name: "Read", logs_deleted: 2 } },
      { at: "2026-11-21T08:00:00Z", action: "delete_habit", input: { habit_id: "$read.habit_id" }, fails: "There is no such habit." },
    ],
  },
];
