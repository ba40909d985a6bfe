//! Cron lines: five fields, minute resolution, names allowed, as crontab(5) reads them. Days of the week count from Sunday
//! (0 or 7), a range may pass Saturday, and a line names days of the month or days of the week, never both: programs
//! disagree whether either or both must hold.

use std::{collections::BTreeSet, str::FromStr};

use chrono::{DateTime, Utc};
use cron::Schedule;

/// The days of the week as the cron crate names them. Its numbers begin with 1 for Sunday, crontab's with 0, so numbers
/// are never handed on.
const WEEKDAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];

/// From when on a line must fire. Any instant would do; a fixed one keeps the answer the same for ever.
const LOOKING_FROM: DateTime<Utc> = DateTime::from_timestamp(1_704_067_200, 0).expect("2024-01-01 is an instant");

/// Reads a line. Out: a schedule that fires at second 0 of the minutes meant, or for the author what is wrong.
pub fn parse(line: &str) -> Result<Schedule, String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else {
        return Err(format!(
            "a cron line has five fields (minute, hour, day of the month, month, day of the week), as in \
             `0 18 * * SUN`; this has {}",
            fields.len()
        ));
    };
    if !is_every(day) && !is_every(weekday) {
        return Err(format!(
            "`{line}` names days of the month and days of the week; use one of them, or two schedules"
        ));
    }
    let weekday = weekdays(weekday)?;
    let schedule = Schedule::from_str(&format!("0 {minute} {hour} {day} {month} {weekday}"))
        .map_err(|_| format!("`{line}` is not a cron line such as `0 18 * * SUN` or `*/15 8-20 * * MON-FRI`"))?;
    match schedule.after(&LOOKING_FROM).next() {
        Some(_) => Ok(schedule),
        None => Err(format!("`{line}` never fires: there is no such day")),
    }
}

fn is_every(field: &str) -> bool {
    matches!(field, "*" | "?")
}

/// The field of weekdays as a list of names.
fn weekdays(field: &str) -> Result<String, String> {
    if is_every(field) {
        return Ok("*".to_owned());
    }
    let mut days = BTreeSet::new();
    for part in field.split(',') {
        let (range, step) = part.split_once('/').unwrap_or((part, "1"));
        let step = step.parse::<usize>().ok().filter(|step| (1..=7).contains(step));
        let step = step.ok_or_else(|| format!("`{part}` has no step from 1 to 7 days"))?;
        let (first, count) = match range.split_once('-') {
            None if is_every(range) => (0, 7),
            None if part.contains('/') => (weekday(range)?, 7 - weekday(range)?),
            None => (weekday(range)?, 1),
            Some(("0", "7")) => (0, 7),
            Some((from, to)) => (weekday(from)?, (weekday(to)? + 7 - weekday(from)?) % 7 + 1),
        };
        days.extend((0..count).step_by(step).map(|ahead| (first + ahead) % 7));
    }
    Ok(days.into_iter().map(|day| WEEKDAYS[day]).collect::<Vec<_>>().join(","))
}

/// A day by number or by at least the first three letters of its name, from 0 for Sunday.
fn weekday(text: &str) -> Result<usize, String> {
    const FULL: [&str; 7] = ["SUNDAY", "MONDAY", "TUESDAY", "WEDNESDAY", "THURSDAY", "FRIDAY", "SATURDAY"];
    let name = text.to_ascii_uppercase();
    let number = text.parse::<usize>().ok().filter(|day| *day <= 7).map(|day| day % 7);
    let named = || FULL.iter().position(|full| name.len() >= 3 && full.starts_with(&name));
    number.or_else(named).ok_or_else(|| format!("`{text}` is not a day of the week: 0 to 7, or SUN to SAT"))
}

#[cfg(test)]
mod tests {
    use chrono::{Datelike, Weekday};

    use super::{LOOKING_FROM, parse};

    fn first_days(line: &str) -> Vec<Weekday> {
        parse(line).unwrap().after(&LOOKING_FROM).take(3).map(|at| at.weekday()).collect()
    }

    #[test]
    fn weekdays_count_from_sunday_as_in_crontab() {
        assert_eq!(first_days("0 9 * * 1")[0], Weekday::Mon);
        assert_eq!(first_days("0 9 * * 0")[0], Weekday::Sun);
        assert_eq!(first_days("0 9 * * 7")[0], Weekday::Sun);
        assert_eq!(first_days("0 9 * * FRI-SUN"), [Weekday::Fri, Weekday::Sat, Weekday::Sun]);
        assert_eq!(first_days("0 9 * * 5-7"), [Weekday::Fri, Weekday::Sat, Weekday::Sun]);
        assert_eq!(first_days("0 9 * * 1-5/2"), [Weekday::Mon, Weekday::Wed, Weekday::Fri]);
    }

    #[test]
    fn a_line_that_cannot_be_meant_is_refused() {
        for line in
            ["", "* * * *", "0 * * * * *", "61 * * * *", "0 0 30 2 *", "0 9 1-7 * MON", "0 9 * * XYZ", "*/0 * * * *"]
        {
            assert!(parse(line).is_err(), "{line}");
        }
        for line in ["* * * * *", "*/15 8-20 * * MON-FRI", "0 0 29 2 *", "0 18 * * SUN", "5,35 * 1 JAN,JUL ?"] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }
}
