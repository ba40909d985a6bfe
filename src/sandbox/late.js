// What only some passes need: errors of the host, the log, the clock that stands still. Loaded when the prelude first needs
// one of them, or before an app's module whose text has one of their names.
//
// By then the app may have changed any builtin, so what this file uses later is what the prelude captured at boot.

export default function late(captured, now, facts) {
  const { BaseDate, BaseError, Internal, Fault, Text, native, stringify, defineProperty, freeze, invoke } = captured;
  const { toWellFormed, slice, refuse_locale } = captured;
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
    error.app_id = facts.app_id;
    if (news.details !== undefined) error.details = news.details;
    return error;
  }
  const refusal = (place, message, details) => failure(place, { code: "Refused", message: clean(message), details });

  function show(value) {
    if (typeof value === "string") return value;
    if (value instanceof BaseError) return `${value.name}: ${value.message}`;
    return (typeof value === "object" && value !== null && stringify(value)) || Text(value);
  }

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

  // `new Date()` is the job's instant. The child's zone is UTC, so local getters agree with the UTC ones everywhere.
  // No app has had a Date before this, so nothing of it has been changed.
  const dates = BaseDate.prototype;
  const { toString, toISOString } = dates;
  const { setPrototypeOf } = Object;
  function FrozenDate(...parts) {
    if (new.target === undefined) return invoke(toString, new BaseDate(now));
    const date = parts.length === 0 ? new BaseDate(now) : new BaseDate(...parts);
    return new.target === FrozenDate ? date : setPrototypeOf(date, new.target.prototype);
  }
  hidden(FrozenDate, "name", "Date");
  FrozenDate.prototype = dates;
  hidden(FrozenDate, "now", () => now);
  hidden(FrozenDate, "parse", BaseDate.parse);
  hidden(FrozenDate, "UTC", BaseDate.UTC);
  dates.constructor = FrozenDate;
  dates.toLocaleString = dates.toLocaleDateString = dates.toLocaleTimeString = refuse_locale;

  const instant = () => new BaseDate(now);
  const text_of = (date) => invoke(toISOString, date);
  const today = () => native.time("day_of", text_of(instant()), "", facts.user.timezone);
  const moment = (value) => (value instanceof BaseDate ? text_of(value) : Text(value));
  let clock = null;
  const time = () => (clock ??= native.load("time")(native.time, facts.user, moment));

  // Names ------------------------------------------------------------------------------------------------------------

  // `names` is 1 when the app's text has a name of this file, more when it has one of the web.
  function install(G, names) {
    const info = line("info");
    hidden(G, "console", { log: info, info, debug: line("debug"), warn: line("warn"), error: line("error") });
    hidden(G, "KrilinError", KrilinError);
    hidden(G, "Date", FrozenDate);
    defineProperty(G, "Intl", { get: refuse_locale, configurable: true });
    if (names > 1) {
      const web = native.load("web");
      for (const name in web) hidden(G, name, web[name]);
    }
  }

  return { failure, refusal, describe, log, instant, today, time, install };
}
