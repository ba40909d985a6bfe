/** krilin.d.ts: what an app's code sees. Everything named here works; what is not named is not there.
 *
 *  Handlers: `export async function <action>(ctx, input)`. A handler of a `query` action only reads.
 *  `krilin types apps/<id>` writes krilin.gen.d.ts beside the app: `Tables` and `Settings` of that app. */

declare namespace krilin {
  type Json = null | boolean | number | string | Json[] | { [key: string]: Json };
  /** A calendar day, "2026-11-22". */
  type IsoDate = string;
  /** A time of day, "20:30" or "20:30:05". */
  type IsoTime = string;
  /** An instant in UTC, "2026-11-22T17:13:20.500Z". Written with any offset, kept to the millisecond. */
  type IsoInstant = string;
  /** "1500ms", "30s", "5m", "12h", "7d" */
  type Duration = string;
  /** Minute, hour, day of the month, month, day of the week: "0 18 * * SUN", or with wildcards and steps. */
  type Cron = string;

  /** On every row, set by the platform. `id` may be given on insert (a UUID); the rest may not. */
  interface Row {
    id: string;
    created_at: IsoInstant;
    updated_at: IsoInstant;
    version: number;
  }

  /** A value alone means `eq`; null means "is null". `ne` is true of null too. `like` has % and _ and minds the case.
   *  `contains`: part of a text; an element, or all of some elements, of a list; containment in JSON. */
  type Comparison<T> =
    | T
    | null
    | {
        eq?: T | null;
        ne?: T | null;
        lt?: T;
        lte?: T;
        gt?: T;
        gte?: T;
        in?: T[];
        like?: string;
        is_null?: boolean;
        contains?: Json;
      };
  /** All members must hold. A member that is `undefined` is refused: it would match every row. */
  type Where<R> = { [K in keyof R]?: Comparison<R[K]> } & { any?: Where<R>[]; all?: Where<R>[]; not?: Where<R> };

  interface Query<R> {
    where?: Where<R>;
    /** At most 4 columns. Without it rows come in the order in which they were written. Nulls are last, with "desc" first. */
    order_by?: { [K in keyof R]?: "asc" | "desc" };
    /** 100 unless given, at most 1000. */
    limit?: number;
    /** `page.next` of the page before, with the same order. */
    after?: string;
    select?: (keyof R)[];
    /** Full text over the columns with `search: true`: words, "phrases", -not, or. */
    search?: string;
    /** In tables with `soft_delete`: deleted rows too, with `deleted_at`. */
    include_deleted?: boolean;
  }
  interface Page<R> extends Array<R> {
    /** Where the next page begins; undefined on the last. */
    next?: string;
  }
  /** Shown as its first day, in the user's zone and week, under its own name: `{ week: "2026-11-16" }`. */
  interface Bucket<R> {
    bucket: "day" | "week" | "month";
    of: keyof R;
  }
  interface Aggregate<R> {
    where?: Where<R>;
    /** At most 4; they also order the result. */
    group_by?: (keyof R | Bucket<R>)[];
    /** As `count`; true unless something else is asked for. */
    count?: boolean;
    /** As `sum_<column>`, `avg_<column>`, `min_<column>`, `max_<column>`. */
    sum?: (keyof R)[];
    avg?: (keyof R)[];
    min?: (keyof R)[];
    max?: (keyof R)[];
    /** 1000 unless given, at most 1000. */
    limit?: number;
  }
  /** A taken unique key: an error; the row that holds it, unchanged; or that row with these columns updated. */
  type OnConflict<R> = "error" | "ignore" | { update: (keyof R)[]; by: (keyof R)[] };
  /** The `version` the row must still have; else `Conflict`. */
  interface Expected {
    expected_version?: number;
  }

  /** The app's own tables, as far as they belong to the user. All of a handler's calls are one transaction. */
  interface Storage<T extends Record<string, Row>> {
    query<K extends keyof T>(table: K, query?: Query<T[K]>): Promise<Page<T[K]>>;
    /** Needs a condition. */
    find_one<K extends keyof T>(table: K, where: Where<T[K]>): Promise<T[K] | null>;
    insert<K extends keyof T>(table: K, row: Partial<T[K]>, options?: { on_conflict?: OnConflict<T[K]> }): Promise<T[K]>;
    /** At most 1000; all or none. */
    insert_many<K extends keyof T>(table: K, rows: Partial<T[K]>[]): Promise<{ count: number; ids: string[] }>;
    update<K extends keyof T>(table: K, id: string, changes: Partial<T[K]>, options?: Expected): Promise<T[K]>;
    /** False when there is no such row. */
    delete<K extends keyof T>(table: K, id: string, options?: Expected): Promise<boolean>;
    count<K extends keyof T>(table: K, where?: Where<T[K]>): Promise<number>;
    aggregate<K extends keyof T>(table: K, what: Aggregate<T[K]>): Promise<Record<string, Json>[]>;
  }

  interface OnceOptions {
    /** One id is one schedule: it is replaced, not doubled. A fresh one unless given. */
    id?: string;
    /** What the action is given. */
    input?: Json;
  }
  interface CronOptions extends OnceOptions {
    /** "user" (the default: wherever the user is) or an IANA zone. */
    timezone?: "user" | string;
    /** What becomes of fires that were missed: none, one for all (the default), or each, at most 100. */
    catch_up?: "none" | "one" | "all";
    /** When the job of the fire before has not ended: this one is left out (the default), or waits. */
    overlap?: "skip" | "queue";
  }
  /** Runs actions by the clock; needs `permissions.schedule`. What a handler schedules is there when the handler is done.
   *  At most 20 beside those of the manifest. Ten failed jobs in a row pause one. */
  interface Schedule {
    create(cron: Cron, action: string, options?: CronOptions): Promise<{ id: string; next_run_at: IsoInstant | null }>;
    /** An instant that is past is at once. */
    once(at: IsoInstant | { in: Duration }, action: string, options?: OnceOptions): Promise<{ id: string }>;
    /** Those of the manifest too, by id. */
    list(): Promise<{ id: string; action: string; next_run_at: IsoInstant | null; paused: boolean }[]>;
    /** False when there is no such schedule. */
    cancel(id: string): Promise<boolean>;
  }

  interface Log {
    (message: string, fields?: Record<string, Json>): void;
    debug(message: string, fields?: Record<string, Json>): void;
    warn(message: string, fields?: Record<string, Json>): void;
    error(message: string, fields?: Record<string, Json>): void;
  }

  /** Reckoning with days and zones. `zone` is the user's unless given. */
  interface Time {
    add_days(day: IsoDate, n: number): IsoDate;
    days_between(from: IsoDate, to: IsoDate): number;
    /** 1 for Monday to 7 for Sunday. */
    weekday(day: IsoDate): number;
    /** The ISO week, "2026-W47". */
    week(day: IsoDate): string;
    /** By the day on which the user's week begins. */
    start_of_week(day: IsoDate): IsoDate;
    day_of(instant: IsoInstant | Date, zone?: string): IsoDate;
    time_of(instant: IsoInstant | Date, zone?: string): IsoTime;
    /** Of two such instants, the first; of none, the first after the gap. */
    instant(day: IsoDate, time: IsoTime, zone?: string): IsoInstant;
    /** yyyy yy, MMMM MMM MM M, dd d, EEEE EEE, HH H, hh h, mm, ss, a; 'text' stands as it is. */
    format(when: IsoInstant | IsoDate | Date, pattern: string, zone?: string): string;
  }

  interface User {
    id: string;
    name: string;
    timezone: string;
    locale: string;
    week_start: "monday" | "sunday";
  }
  interface Job {
    id: string;
    /** From 1. */
    attempt: number;
    trigger: "user" | "agent" | "schedule" | "stream" | "app" | "hook";
    caller_app?: string;
    /** With the trigger "schedule": the fire. `missed` fires before it were not made up for. */
    schedule?: { id: string; nominal_at: IsoInstant; fired_at: IsoInstant; missed: number };
    /** How far the job is: from 0 to 1, or an object, of at most 1 KB with the message. Seen at once, before anything is
     *  committed; the latest one counts. */
    progress(value: number | Record<string, Json>, message?: string): Promise<null>;
    /** The jobs that this one waited for, in the order of their ids, at most 100; `after` is the id of the last one seen. */
    children(options?: { after?: string }): Promise<ChildEnd[]>;
  }
  interface ChildEnd {
    id: string;
    kind: string;
    state: "done" | "dead" | "cancelled";
    result: Json;
    error: { code: string; message: string } | null;
  }

  interface Context<T extends Record<string, Row> = any, S = any> {
    readonly user: User;
    readonly app_id: string;
    readonly app_version: string;
    /** Null in a `query` action. */
    readonly job: Job | null;
    readonly settings: Readonly<S>;
    readonly storage: Storage<T>;
    readonly schedule: Schedule;
    /** At most 100 lines and 64 KiB. `console` writes here too. */
    readonly log: Log;
    readonly time: Time;
    /** The job's instant, the same in every attempt; `Date.now()` and `new Date()` are the same. */
    now(): Date;
    /** That instant's day where the user is. */
    today(): IsoDate;
    /** A UUID, the same in every attempt of the job. */
    generate_id(): string;
    /** From 0 to 1, likewise; `Math.random()` is the same. */
    random(): number;
    /** Refuses: nothing is kept, nothing is tried again, and the user reads the message as written. */
    fail(message: string, details?: Json): never;
  }

  /** What a call throws. Caught, the handler may go on; thrown on, nothing is kept. */
  class KrilinError extends Error {
    readonly code:
      | "ValidationFailed"
      | "Refused"
      | "PermissionDenied"
      | "NotFound"
      | "Conflict"
      | "UniqueViolation"
      | "ForeignKeyViolation"
      | "QuotaExceeded"
      | "Unavailable"
      | "Internal";
    readonly retryable: boolean;
    readonly retry_after?: Duration;
    readonly app_id: string;
    /** With ValidationFailed a list of `{ pointer, message }`. */
    readonly details?: Json;
  }
}

declare const KrilinError: typeof krilin.KrilinError;
