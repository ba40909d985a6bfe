// Errors of the host, the log, the clock that stands still, and the global names that come of them.
//
// The app may change any builtin, so what is used after boot is captured here first. `facts` gives those of the pass.

export default function platform(native, facts, time_face, web) {
  const G = globalThis;
  const { Date: BaseDate, Error: BaseError, InternalError: Internal, TypeError: Fault, String: Text } = G;
  const { stringify } = JSON;
  const { defineProperty, freeze, setPrototypeOf } = Object;
  const { toWellFormed, slice } = String.prototype;
  const { call } = platform;
  const invoke = call.bind(call);
  const MOST_WORDS = 8 << 10;
  const TOKEN = {};
  const hidden = (object, name, value) =>
    defineProperty(object, name, { __proto__: null, value, writable: true, configurable: true, enumerable: false });
  const clean = (text) => invoke(toWellFormed, Text(text));
  const words = (text) => clean(invoke(slice, Text(text), 0, MOST_WORDS));

  // Errors -----------------------------------------------------------------------------------------------------------

  let told;
  class KrilinError extends BaseError {
    #told = null;
    constructor(token) {
      super();
      if (token !== TOKEN) throw new Fault("a KrilinError comes from ctx; to refuse, call ctx.fail(message)");
    }
    static {
      told = (error, news) => (news ? (error.#told = news) : #told in error ? error.#told : null);
      hidden(this.prototype, "name", "KrilinError");
    }
  }

  function failure(place, news) {
    const error = new KrilinError(TOKEN);
    told(error, news);
    hidden(error, "stack", place.stack);
    hidden(error, "message", news.message);
    error.code = news.code;
    error.retryable = news.retryable === true;
    if (news.retry_after_ms !== undefined) error.retry_after = news.retry_after_ms + "ms";
    error.app_id = facts().app_id;
    if (news.details !== undefined) error.details = news.details;
    return error;
  }
  const refusal = (place, message, details) => failure(place, { code: "Refused", message: clean(message), details });

  function show(value) {
    if (typeof value === "string") return value;
    if (value instanceof BaseError) return `${value.name}: ${value.message}`;
    return (typeof value === "object" && value !== null && stringify(value)) || Text(value);
  }

  // Errors leave the context as text. Getters of what was thrown may run here; they run within the limits.
  function describe(thrown) {
    const news = typeof thrown === "object" && thrown !== null ? told(thrown) : null;
    if (news !== null) {
      const { code, message, details, retry_after_ms } = news;
      return stringify({ code, message, details, retry_after_ms, stack: Text(thrown.stack) });
    }
    if (thrown instanceof BaseError) {
      const { name, message, stack } = thrown;
      const code = thrown instanceof Internal && message === "out of memory" ? "MemoryLimit" : "AppError";
      return stringify({ code, message: words(`${name}: ${message}`), stack: words(stack) });
    }
    return stringify({ code: "AppError", message: words(`the app threw ${show(thrown)}`), stack: "" });
  }

  // Log --------------------------------------------------------------------------------------------------------------

  function say(level, message, fields) {
    native.log(level, clean(message), fields === undefined ? "null" : (stringify(fields) ?? "null"));
  }
  const line = (level) => (...values) => {
    let text = "";
    for (let i = 0; i < values.length; i += 1) text += (i === 0 ? "" : " ") + show(values[i]);
    native.log(level, clean(text), "null");
  };
  const log = (message, fields) => say("info", message, fields);
  for (const level of ["debug", "warn", "error"]) log[level] = (message, fields) => say(level, message, fields);
  freeze(log);

  // Time -------------------------------------------------------------------------------------------------------------

  function refuse_locale() {
    throw new Fault("the sandbox knows no locales: format dates with ctx.time.format, numbers with toFixed");
  }

  // `new Date()` is the job's instant. The child's zone is UTC, so local getters agree with the UTC ones everywhere.
  const dates = BaseDate.prototype;
  const { toString, toISOString } = dates;
  function FrozenDate(...parts) {
    if (new.target === undefined) return invoke(toString, new BaseDate(native.now()));
    const date = parts.length === 0 ? new BaseDate(native.now()) : new BaseDate(...parts);
    return new.target === FrozenDate ? date : setPrototypeOf(date, new.target.prototype);
  }
  hidden(FrozenDate, "name", "Date");
  FrozenDate.prototype = dates;
  hidden(FrozenDate, "now", () => native.now());
  hidden(FrozenDate, "parse", BaseDate.parse);
  hidden(FrozenDate, "UTC", BaseDate.UTC);
  dates.constructor = FrozenDate;

  const instant = () => new BaseDate(native.now());
  const text_of = (date) => invoke(toISOString, date);
  const today = () => native.time("day_of", text_of(instant()), "", facts().user.timezone);
  const moment = (value) => (value instanceof BaseDate ? text_of(value) : Text(value));
  const time = time_face(native.time, () => facts().user, moment);

  // Names ------------------------------------------------------------------------------------------------------------

  const info = line("info");
  hidden(G, "console", { log: info, info, debug: line("debug"), warn: line("warn"), error: line("error") });
  hidden(G, "KrilinError", KrilinError);
  hidden(G, "Date", FrozenDate);
  for (const name in web) hidden(G, name, web[name]);
  defineProperty(G, "Intl", { get: refuse_locale, configurable: true });
  for (const owner of [Number.prototype, Array.prototype, BigInt.prototype]) hidden(owner, "toLocaleString", refuse_locale);
  for (const name of ["toLocaleString", "toLocaleDateString", "toLocaleTimeString"]) hidden(dates, name, refuse_locale);
  hidden(Math, "random", native.random);
  // The context has no compiler; without the names the error says what is missing.
  for (const name of ["eval", "Function", "Atomics", "SharedArrayBuffer"]) delete G[name];

  return { failure, refusal, describe, log, instant, today, time };
}
