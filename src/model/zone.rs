//! Days, times and zones: the arithmetic of a calendar on a wall in some place. Pure; the instant is always given.
//!
//! Texts are ISO 8601: a day is `2026-11-22`, a time `20:30`, an instant `2026-11-22T17:13:20Z`, a week `2026-W47`, a
//! zone an IANA name. Names of months and weekdays are English: the platform knows no other language yet.

use std::fmt::Write;

use chrono::{
    DateTime, Datelike, Days, Duration, MappedLocalTime, NaiveDate, NaiveDateTime, NaiveTime, SecondsFormat, TimeZone,
    Timelike, Utc,
};
use chrono_tz::Tz;

use super::user::WeekStart;

/// A text that is not what it should be, or an answer outside the years 1 to 9999.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not a day.
    #[error("`{0}` is not a day; write it as 2026-11-22")]
    Day(String),
    /// Not a time of day.
    #[error("`{0}` is not a time; write it as 20:30")]
    Time(String),
    /// Not an instant.
    #[error("`{0}` is not an instant; write it as 2026-11-22T17:13:20Z")]
    Instant(String),
    /// Not a zone.
    #[error("`{0}` is not a time zone; write it as Europe/Berlin")]
    Zone(String),
    /// Not a pattern of [`format_local`].
    #[error("`{0}` means nothing in a pattern; there are yyyy yy MMMM MMM MM M dd d EEEE EEE HH H hh h mm ss a")]
    Pattern(String),
    /// Not a number of days.
    #[error("`{0}` is not a whole number of days")]
    Count(String),
    /// Before the year 1 or after the year 9999.
    #[error("outside the years 1 to 9999")]
    Range,
}

/// The longest pattern of [`format_local`], in bytes.
const PATTERN_BYTES: usize = 200;
/// The longest gap in any zone's local time, in minutes: a calendar day that was skipped, and some room.
const GAP_MINUTES: i64 = 26 * 60;

/// Reads a day.
pub fn day(text: &str) -> Result<NaiveDate, Error> {
    let wrong = || Error::Day(clip(text));
    if text.len() != 10 {
        return Err(wrong());
    }
    NaiveDate::parse_from_str(text, "%Y-%m-%d").map_err(|_| wrong()).and_then(in_range)
}

/// Reads a time of day, with or without seconds.
pub fn time(text: &str) -> Result<NaiveTime, Error> {
    let pattern = match text.len() {
        5 => "%H:%M",
        8 => "%H:%M:%S",
        _ => return Err(Error::Time(clip(text))),
    };
    NaiveTime::parse_from_str(text, pattern).map_err(|_| Error::Time(clip(text)))
}

/// Reads an instant with any offset.
pub fn instant(text: &str) -> Result<DateTime<Utc>, Error> {
    DateTime::parse_from_rfc3339(text).map(|at| at.to_utc()).map_err(|_| Error::Instant(clip(text)))
}

/// Reads a zone's name.
pub fn zone(text: &str) -> Result<Tz, Error> {
    text.parse().map_err(|_| Error::Zone(clip(text)))
}

/// The day `n` days after `day`; before it when `n` is negative.
pub fn add_days(day: NaiveDate, n: i64) -> Result<NaiveDate, Error> {
    let days = Days::new(n.unsigned_abs());
    let moved = if n < 0 { day.checked_sub_days(days) } else { day.checked_add_days(days) };
    moved.ok_or(Error::Range).and_then(in_range)
}

/// How many days after `from` the day `to` is.
pub fn days_between(from: NaiveDate, to: NaiveDate) -> i64 {
    to.signed_duration_since(from).num_days()
}

/// 1 for Monday to 7 for Sunday.
pub fn weekday(day: NaiveDate) -> u32 {
    day.weekday().number_from_monday()
}

/// The ISO week of a day, `2026-W47`. Its year is that of the week's Thursday.
pub fn week(day: NaiveDate) -> String {
    let week = day.iso_week();
    format!("{:04}-W{:02}", week.year(), week.week())
}

/// The first day of the week that holds `day`.
pub fn start_of_week(day: NaiveDate, start: WeekStart) -> Result<NaiveDate, Error> {
    let back = match start {
        WeekStart::Monday => day.weekday().num_days_from_monday(),
        WeekStart::Sunday => day.weekday().num_days_from_sunday(),
    };
    add_days(day, -i64::from(back))
}

/// What the clock on a wall in `zone` shows at an instant.
pub fn local(at: DateTime<Utc>, zone: Tz) -> NaiveDateTime {
    at.with_timezone(&zone).naive_local()
}

/// The instant at which a clock in `zone` shows this day and time. Of two, the first; when the clock skips them, the
/// first instant after the gap.
pub fn at(day: NaiveDate, time: NaiveTime, zone: Tz) -> Result<DateTime<Utc>, Error> {
    let asked = day.and_time(time);
    if let MappedLocalTime::Single(found) | MappedLocalTime::Ambiguous(found, _) = zone.from_local_datetime(&asked) {
        return Ok(found.to_utc());
    }
    let minute = asked - Duration::seconds(i64::from(time.second()));
    (1..=GAP_MINUTES)
        .find_map(|n| zone.from_local_datetime(&(minute + Duration::minutes(n))).earliest())
        .map(|found| found.to_utc())
        .ok_or(Error::Range)
}

/// An instant as text, to the second, or to the millisecond when it has some.
pub fn instant_text(at: DateTime<Utc>) -> String {
    let form = if at.timestamp_subsec_millis() == 0 { SecondsFormat::Secs } else { SecondsFormat::Millis };
    at.to_rfc3339_opts(form, true)
}

/// Formats what a clock shows. `yyyy yy` year, `MMMM MMM MM M` month, `dd d` day, `EEEE EEE` weekday, `HH H` hours of 24,
/// `hh h` hours of 12, `mm` minutes, `ss` seconds, `a` AM or PM. Text in single quotes stands as it is, as does
/// everything that is no letter; `''` is a quote.
pub fn format_local(shown: NaiveDateTime, pattern: &str) -> Result<String, Error> {
    if pattern.len() > PATTERN_BYTES {
        return Err(Error::Pattern(clip(pattern)));
    }
    let mut text = String::new();
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        let length = if first == '\'' {
            quoted(rest, &mut text)?
        } else if first.is_ascii_alphabetic() {
            let length = rest.len() - rest.trim_start_matches(first).len();
            field(shown, &rest[..length], &mut text)?;
            length
        } else {
            text.push(first);
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    Ok(text)
}

/// Appends the quoted text at the start of `rest`; gives its length with the quotes.
fn quoted(rest: &str, text: &mut String) -> Result<usize, Error> {
    let inner = &rest[1..];
    let end = inner.find('\'').ok_or_else(|| Error::Pattern(clip(rest)))?;
    text.push_str(if end == 0 { "'" } else { &inner[..end] });
    Ok(end + 2)
}

fn field(shown: NaiveDateTime, name: &str, text: &mut String) -> Result<(), Error> {
    let hour_of_12 = shown.hour12().1;
    let written = match name {
        "yyyy" => write!(text, "{:04}", shown.year()),
        "yy" => write!(text, "{:02}", shown.year().rem_euclid(100)),
        "MMMM" => write!(text, "{}", shown.format("%B")),
        "MMM" => write!(text, "{}", shown.format("%b")),
        "MM" => write!(text, "{:02}", shown.month()),
        "M" => write!(text, "{}", shown.month()),
        "dd" => write!(text, "{:02}", shown.day()),
        "d" => write!(text, "{}", shown.day()),
        "EEEE" => write!(text, "{}", shown.format("%A")),
        "EEE" => write!(text, "{}", shown.format("%a")),
        "HH" => write!(text, "{:02}", shown.hour()),
        "H" => write!(text, "{}", shown.hour()),
        "hh" => write!(text, "{hour_of_12:02}"),
        "h" => write!(text, "{hour_of_12}"),
        "mm" => write!(text, "{:02}", shown.minute()),
        "ss" => write!(text, "{:02}", shown.second()),
        "a" => write!(text, "{}", if shown.hour12().0 { "PM" } else { "AM" }),
        _ => return Err(Error::Pattern(clip(name))),
    };
    written.map_err(|_| Error::Range)
}

fn in_range(day: NaiveDate) -> Result<NaiveDate, Error> {
    if (1..=9999).contains(&day.year()) { Ok(day) } else { Err(Error::Range) }
}

/// The beginning of a text, for an error message.
fn clip(text: &str) -> String {
    text.chars().take(40).collect()
}
