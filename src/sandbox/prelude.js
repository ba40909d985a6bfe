// What app code sees of Krilin. Runs once in a child; every pass begins with what it left.
//
// The app shares this realm and may change any builtin it likes, so everything used after boot is captured here first.
// There is no secret to keep: with the raw door in hand an app could only make calls that the host judges anyway.

export default function boot(native, platform_of, time_face, web) {
  const { stringify } = JSON;
  const { defineProperty, freeze } = Object;
  const { captureStackTrace } = Error;
  const BasePromise = Promise;
  const platform = platform_of(native, () => facts, time_face, web);
  const { failure } = platform;

  const MOST_CHARACTERS = 1 << 20;
  let facts = null;
  let calls_left = 0;
  let calls_most = 0;
  let waiting = [];
  let batch = "";

  // The door ---------------------------------------------------------------------------------------------------------

  // JSON drops what is undefined, and a condition that lost a member matches more than its author meant.
  function undefined_in(value, path) {
    if (value === undefined) return path;
    if (typeof value !== "object" || value === null) return null;
    for (const key in value) {
      const hole = undefined_in(value[key], `${path}/${key}`);
      if (hole !== null) return hole;
    }
    return null;
  }

  // Where a method has its condition: nowhere, as its second argument, or in the member `where` of it.
  const ITSELF = 1;
  const WHERE = 2;

  function api(name, methods) {
    const face = {};
    for (let i = 0; i < methods.length; i += 1) {
      const method = methods[i];
      const paged = method === "query";
      const condition = paged || method === "aggregate" ? WHERE : method === "find_one" || method === "count" ? ITSELF : 0;
      face[method] = function door(...args) {
        // Taken now, so that the stack has the author's line; few calls fail, so the error is made later.
        const place = {};
        captureStackTrace(place, door);
        return new BasePromise((resolve, reject) => {
          if (condition !== 0) {
            const hole = undefined_in((condition === ITSELF ? args[1] : args[1]?.where) ?? null, "");
            if (hole !== null) {
              reject(failure(place, { code: "ValidationFailed", message: `the condition is undefined at ${hole}: it would match every row` }));
              return;
            }
          }
          if (calls_left <= 0) {
            reject(failure(place, { code: "QuotaExceeded", message: `more than ${calls_most} calls in one pass` }));
            return;
          }
          calls_left -= 1;
          const text = stringify(args);
          if (batch.length + text.length > MOST_CHARACTERS) {
            reject(failure(place, { code: "QuotaExceeded", message: `the arguments of ${name}.${method} and of the calls beside it are over 1 MB` }));
            return;
          }
          batch += `${batch === "" ? "" : ","}{"api":"${name}","method":"${method}","args":${text}}`;
          waiting[waiting.length] = { resolve, reject, place, paged };
        });
      };
    }
    return face;
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
      const { resolve, reject, place, paged } = asked[i];
      const answer = answers[i];
      if (answer.err !== undefined) reject(failure(place, answer.err));
      else if (paged) {
        const { rows, next } = answer.ok;
        const value = next === null ? undefined : next;
        defineProperty(rows, "next", { value, writable: true, configurable: true, enumerable: false });
        resolve(rows);
      } else resolve(answer.ok);
    }
  }

  // The pass ---------------------------------------------------------------------------------------------------------

  const storage = freeze(api("storage", ["query", "find_one", "insert", "insert_many", "update", "delete", "count", "aggregate"]));
  const schedule = freeze(api("schedule", ["create", "once", "list", "cancel"]));
  const of_job = api("job", ["progress", "children"]);

  function begin(given, calls) {
    facts = given;
    calls_left = calls_most = calls;
  }

  function deep_freeze(value) {
    for (const key in value) {
      const member = value[key];
      if (typeof member === "object" && member !== null) deep_freeze(member);
    }
    return freeze(value);
  }

  function fail(message, details) {
    const place = {};
    captureStackTrace(place, fail);
    throw platform.refusal(place, message, details);
  }

  const { instant: now, today, log, time } = platform;
  const { id: generate_id, random } = native;

  async function start(handler, input) {
    const { user, app_id, app_version, settings } = deep_freeze(facts);
    const job = facts.job === null ? null : freeze({ ...facts.job, ...of_job });
    const ctx = freeze({
      user, app_id, app_version, job, settings, storage, schedule, fail, now, today, generate_id, random, log, time,
    });
    return await handler(ctx, input);
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

  return { begin, start, take, settle, track, check_orphans, describe: platform.describe };
}
