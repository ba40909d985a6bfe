// Types of habit-tracker 1.0.0, written by `krilin app types` from its manifest. Change the manifest, then write them again.
/// <reference path="../krilin.d.ts" />

/** The rows of each table. */
type Tables = {
  /** What the user wants to do and how often */
  habits: krilin.Row & {
    active: boolean;
    archived_on: krilin.IsoDate | null;
    color: string | null;
    cue: string | null;
    frequency: "daily" | "weekdays" | "weekly";
    name: string;
    position: number;
    /** What the logs before a day come to, so that a streak needs only the logs since */
    settled: krilin.Json | null;
    started_on: krilin.IsoDate;
    weekly_target: number;
  };
  /** One row per habit per local day it was done */
  habit_logs: krilin.Row & {
    day: krilin.IsoDate;
    habit_id: string;
    mood: number | null;
    note: string | null;
  };
};

/** What the user has set: `ctx.settings`. */
type Settings = {};

/** What each action is given and gives back. */
type Actions = {
  /** Active habits with today's state, this week and streaks; with due_only those left today */
  get_habits: { input: { due_only: boolean; include_archived: boolean }; output: { habits: krilin.Json[]; archived?: krilin.Json[]; count: number; names: string } };
  /** How many habits are due today, how many of them are done, and their share */
  get_today: { input: Record<string, krilin.Json>; output: { day: string; due: number; done: number; rate: number } };
  /** Current and best streak of each active habit */
  list_streaks: { input: Record<string, krilin.Json>; output: krilin.Json[] };
  /** Current and best streak of one habit, active or archived */
  calculate_streak: { input: { habit_id: string }; output: { habit_id: string; habit_name: string; streak: number; best_streak: number } };
  /** Days done and days due per active habit and week, this week included; twelve weeks unless told */
  summarize_weeks: { input: { weeks: number }; output: krilin.Json[] };
  /** Add a habit with its name and rhythm */
  create_habit: { input: { name: string; frequency?: "daily" | "weekdays" | "weekly"; weekly_target?: number; cue?: string; color?: string }; output: Record<string, krilin.Json> };
  /** Change a habit's name, rhythm, cue or color; a new rhythm counts the whole past anew */
  edit_habit: { input: { habit_id: string; name?: string; frequency?: "daily" | "weekdays" | "weekly"; weekly_target?: number; cue?: string | null; color?: string }; output: Record<string, krilin.Json> };
  /** Check a habit off for a day, or undo it; one log per habit and day, however often it is called */
  log_habit: { input: { habit_id: string; day?: krilin.IsoDate; completed: boolean; note?: string; mood?: number }; output: { habit_name: string; streak: number; milestone: boolean } };
  /** Check off the one active habit that has this name or begins with it, in any case */
  log_by_name: { input: { habit: string; day?: krilin.IsoDate; completed: boolean }; output: Record<string, krilin.Json> };
  /** Put a habit away and keep its logs */
  archive_habit: { input: { habit_id: string }; output: Record<string, krilin.Json> };
  /** Bring an archived habit back, at the end of the list */
  restore_habit: { input: { habit_id: string }; output: Record<string, krilin.Json> };
  /** Delete a habit with all its logs */
  delete_habit: { input: { habit_id: string }; output: Record<string, krilin.Json> };
  /** Put these habits first, in this order; the others follow as they were */
  reorder: { input: { ids: string[] }; output: Record<string, krilin.Json> };
  /** Three habits to begin with, for someone who has none */
  seed: { input: Record<string, krilin.Json>; output: Record<string, krilin.Json> };
};
