// `ctx.time`: calendar days and instants in a zone.

export default function face(reckon, user, moment) {
  const zone = (name) => (name === undefined ? user().timezone : String(name));
  return Object.freeze({
    add_days: (day, n) => reckon("add_days", String(day), String(n), ""),
    days_between: (a, b) => +reckon("days_between", String(a), String(b), ""),
    weekday: (day) => +reckon("weekday", String(day), "", ""),
    week: (day) => reckon("week", String(day), "", ""),
    start_of_week: (day) => reckon("start_of_week", String(day), user().week_start, ""),
    day_of: (instant, name) => reckon("day_of", moment(instant), "", zone(name)),
    time_of: (instant, name) => reckon("time_of", moment(instant), "", zone(name)),
    instant: (day, at, name) => reckon("instant", String(day), String(at), zone(name)),
    format: (when, pattern, name) => reckon("format", moment(when), String(pattern), zone(name)),
  });
}
