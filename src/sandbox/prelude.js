// What app code sees. Runs once in every fresh context, before the app's module; nothing here survives a pass.
//
// The app shares this realm and may change any builtin it likes, so everything used after boot is captured here first.
// There is no secret to keep: with the raw door in hand an app could only make calls that the host judges anyway.

export default function boot(native) {
  const G = globalThis;
  const { stringify } = JSON;
  const { defineProperty, freeze, setPrototypeOf } = Object;
  const { captureStackTrace } = Error;
  const BasePromise = Promise;
  const BaseDate = Date;
  const BaseError = Error;
  const Internal = InternalError;
  const date_text = Date.prototype.toString;
  const well_formed = Function.prototype.call.bind(String.prototype.toWellFormed);
  const cut = Function.prototype.call.bind(String.prototype.slice);
  const words = (text) => well_formed(cut(String(text), 0, MOST_WORDS));
  const hidden = (object, name, value) =>
    defineProperty(object, name, { value, writable: true, configurable: true, enumerable: false });

  const MOST_CHARACTERS = 1 << 20;
  const MOST_WORDS = 8 << 10;
  const TOKEN = {};
  let now = 0;
  let facts = null;
  let calls_left = 0;
  let calls_most = 0;
  let waiting = [];
  let batch = "";

  // Errors -----------------------------------------------------------------------------------------------------------

  let told;
  class KrilinError extends BaseError {
    #told = null;
    constructor(token) {
      super();
      if (token !== TOKEN) throw new TypeError("a KrilinError comes from ctx; to refuse, call ctx.fail(message)");
    }
    static {
      told = (error, news) => (news ? (error.#told = news) : #told in error ? error.#told : null);
      hidden(this.prototype, "name", "KrilinError");
    }
  }
  hidden(G, "KrilinError", KrilinError);

  // Taken when the call is made, so that the stack has the author's line; few calls fail, so the error is made later.
  function here(below) {
    const place = {};
    captureStackTrace(place, below);
    return place;
  }

  function failure(place, news) {
    const error = new KrilinError(TOKEN);
    told(error, news);
    hidden(error, "stack", place.stack);
    hidden(error, "message", news.message);
    error.code = news.code;
    error.retryable = news.retryable === true;
    if (news.retry_after_ms !== undefined) error.retry_after = news.retry_after_ms + "ms";
    error.app_id = facts.app_id;
    if (news.details !== undefined) error.details = news.details;
    return error;
  }

  // The door ---------------------------------------------------------------------------------------------------------

  function call(api, method, args, shape, below) {
    const place = here(below);
    return new BasePromise((resolve, reject) => {
      if (calls_left <= 0) {
        reject(failure(place, { code: "QuotaExceeded", message: `more than ${calls_most} calls in one pass` }));
        return;
      }
      calls_left -= 1;
      const text = stringify(args);
      if (batch.length + text.length > MOST_CHARACTERS) {
        reject(failure(place, { code: "QuotaExceeded", message: `the arguments of ${api}.${method} and of the calls beside it are over 1 MB` }));
        return;
      }
      batch += `${batch === "" ? "" : ","}{"api":"${api}","method":"${method}","args":${text}}`;
      waiting[waiting.length] = { resolve, reject, place, shape };
    });
  }

  function take() {
    const calls = batch;
    batch = "";
    return calls;
  }

  function settle(answers) {
    const asked = waiting;
    waiting = [];
    for (let i = 0; i < asked.length; i += 1) {
      const { resolve, reject, place, shape } = asked[i];
      const answer = answers[i];
      if (answer.err !== undefined) reject(failure(place, answer.err));
      else resolve(shape === null ? answer.ok : shape(answer.ok));
    }
  }

  function page({ rows, next }) {
    hidden(rows, "next", next === null ? undefined : next);
    return rows;
  }

  // JSON drops what is undefined, and a condition that lost a member matches more than its author meant.
  const CONDITIONS = {
    __proto__: null,
    query: (options) => options?.where ?? null,
    aggregate: (options) => options?.where ?? null,
    find_one: (where) => where ?? null,
    count: (where) => where ?? null,
  };
  function undefined_in(value, path) {
    if (value === undefined) return path;
    if (typeof value !== "object" || value === null) return null;
    for (const key in value) {
      const hole = undefined_in(value[key], `${path}/${key}`);
      if (hole !== null) return hole;
    }
    return null;
  }
  function refused(message, below) {
    const error = failure(here(below), { code: "ValidationFailed", message });
    return new BasePromise((_, reject) => reject(error));
  }

  const SHAPES = { __proto__: null, query: page };
  function api(name, methods) {
    const face = {};
    for (let i = 0; i < methods.length; i += 1) {
      const method = methods[i];
      const shape = SHAPES[method] ?? null;
      const condition = CONDITIONS[method] ?? null;
      face[method] = function door(...args) {
        const hole = condition === null ? null : undefined_in(condition(args[1]), "");
        if (hole !== null) return refused(`the condition is undefined at ${hole}: it would match every row`, door);
        return call(name, method, args, shape, door);
      };
    }
    return freeze(face);
  }

  // Log --------------------------------------------------------------------------------------------------------------

  function say(level, message, fields) {
    native.log(level, well_formed(String(message)), fields === undefined ? "null" : (stringify(fields) ?? "null"));
  }
  function show(value) {
    if (typeof value === "string") return value;
    if (value instanceof BaseError) return `${value.name}: ${value.message}`;
    return (typeof value === "object" && value !== null && stringify(value)) || String(value);
  }
  const line = (level) => (...values) => {
    let text = "";
    for (let i = 0; i < values.length; i += 1) text += (i === 0 ? "" : " ") + show(values[i]);
    native.log(level, well_formed(text), "null");
  };
  const log = (message, fields) => say("info", message, fields);
  for (const level of ["debug", "warn", "error"]) log[level] = (message, fields) => say(level, message, fields);
  freeze(log);
  const info = line("info");
  hidden(G, "console", { log: info, info, debug: line("debug"), warn: line("warn"), error: line("error") });

  // Time and chance --------------------------------------------------------------------------------------------------

  // `new Date()` is the job's instant. The child's zone is UTC, so local getters agree with the UTC ones everywhere.
  function FrozenDate(...parts) {
    if (new.target === undefined) return date_text.call(new BaseDate(now));
    const date = parts.length === 0 ? new BaseDate(now) : new BaseDate(...parts);
    return new.target === FrozenDate ? date : setPrototypeOf(date, new.target.prototype);
  }
  hidden(FrozenDate, "name", "Date");
  FrozenDate.prototype = BaseDate.prototype;
  hidden(FrozenDate, "now", () => now);
  hidden(FrozenDate, "parse", BaseDate.parse);
  hidden(FrozenDate, "UTC", BaseDate.UTC);
  // An assignment to a builtin keeps it out of enumerations and is cheaper than a definition.
  BaseDate.prototype.constructor = FrozenDate;
  G.Date = FrozenDate;
  Math.random = native.random;

  const instant_text = BaseDate.prototype.toISOString;
  const moment = (value) => (value instanceof BaseDate ? instant_text.call(value) : String(value));
  let clock = null;
  let later = null;
  // Few passes schedule anything.
  const schedule = () => (later ??= api("schedule", ["create", "once", "list", "cancel"]));
  const time = () => (clock ??= native.load("time")(native.time, facts.user, moment));

  // What is not here -------------------------------------------------------------------------------------------------

  const refuse_locale = () => {
    throw new TypeError("the sandbox knows no locales: format dates with ctx.time.format, numbers with toFixed");
  };
  const dates = BaseDate.prototype;
  dates.toLocaleString = dates.toLocaleDateString = dates.toLocaleTimeString = refuse_locale;
  Number.prototype.toLocaleString = Array.prototype.toLocaleString = refuse_locale;
  hidden(BigInt.prototype, "toLocaleString", refuse_locale);
  defineProperty(G, "Intl", { get: refuse_locale, configurable: true });
  // Eval is compiled out of this context; without the names the error says what is missing.
  delete G.eval;
  delete G.Function;
  delete G.Atomics;
  delete G.SharedArrayBuffer;

  // The rest of the web's names is loaded when one of them is touched.
  for (const name of ["URL", "URLSearchParams", "TextEncoder", "TextDecoder", "structuredClone"]) {
    defineProperty(G, name, {
      get: () => {
        const web = native.load("web");
        for (const key in web) hidden(G, key, web[key]);
        return G[name];
      },
      set: (value) => hidden(G, name, value),
      configurable: true,
    });
  }

  // The pass ---------------------------------------------------------------------------------------------------------

  function begin(given, at, calls) {
    facts = given;
    now = at;
    calls_left = calls_most = calls;
  }

  function deep_freeze(value) {
    if (typeof value === "object" && value !== null) {
      for (const key in value) deep_freeze(value[key]);
      freeze(value);
    }
    return value;
  }

  function fail(message, details) {
    throw failure(here(fail), { code: "Refused", message: well_formed(String(message)), details });
  }

  async function start(handler, input) {
    deep_freeze(facts);
    const { user, app_id, app_version, settings } = facts;
    const job = facts.job === null ? null : freeze({ ...facts.job, ...api("job", ["progress", "children"]) });
    const storage = api("storage", ["query", "find_one", "insert", "insert_many", "update", "delete", "count", "aggregate"]);
    const ctx = freeze({
      user, app_id, app_version, job, settings, storage, log, fail,
      now: () => new BaseDate(now),
      today: () => native.time("day_of", instant_text.call(new BaseDate(now)), "", user.timezone),
      generate_id: native.id,
      random: native.random,
      get time() { return time(); },
      get schedule() { return schedule(); },
    });
    return await handler(ctx, input);
  }

  // Errors leave the context as text. Getters of what was thrown may run here; they run within the limits.
  function describe(thrown) {
    const news = typeof thrown === "object" && thrown !== null ? told(thrown) : null;
    if (news !== null) {
      const { code, message, details, retry_after_ms } = news;
      return stringify({ code, message, details, retry_after_ms, stack: String(thrown.stack) });
    }
    if (thrown instanceof BaseError) {
      const { name, message, stack } = thrown;
      const code = thrown instanceof Internal && message === "out of memory" ? "MemoryLimit" : "AppError";
      return stringify({ code, message: words(`${name}: ${message}`), stack: words(stack) });
    }
    return stringify({ code: "AppError", message: words(`the app threw ${show(thrown)}`), stack: "" });
  }

  // An error of a promise that nobody awaits fails the pass, as it would in other runtimes: a write that was refused must
  // not look as if it had been done.
  let orphans = [];
  function track(promise, reason, handled) {
    if (!handled) orphans[orphans.length] = { promise, reason };
    else {
      const kept = [];
      for (let i = 0; i < orphans.length; i += 1) if (orphans[i].promise !== promise) kept[kept.length] = orphans[i];
      orphans = kept;
    }
  }
  function check_orphans() {
    if (orphans.length > 0) throw orphans[0].reason;
  }

  return { begin, start, take, settle, describe, track, check_orphans };
}
