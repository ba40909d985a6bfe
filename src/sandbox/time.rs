//! The native half of `ctx.time`: one function by name, so that a fresh context has one object more and not ten.

use chrono::{NaiveDateTime, NaiveTime};

use crate::model::{
    user::WeekStart,
    zone::{self, Error},
};

/// Reckons one operation of `ctx.time`. The three arguments are what the prelude makes of the author's: texts, of which an
/// operation uses as many as it needs.
pub(super) fn reckon(op: &str, a: &str, b: &str, c: &str) -> Result<String, Error> {
    Ok(match op {
        "add_days" => {
            let days = b.parse().map_err(|_| Error::Count(b.chars().take(40).collect()))?;
            zone::add_days(zone::day(a)?, days)?.to_string()
        }
        "days_between" => zone::days_between(zone::day(a)?, zone::day(b)?).to_string(),
        "weekday" => zone::weekday(zone::day(a)?).to_string(),
        "week" => zone::week(zone::day(a)?),
        "start_of_week" => {
            let start = if b == "sunday" { WeekStart::Sunday } else { WeekStart::Monday };
            zone::start_of_week(zone::day(a)?, start)?.to_string()
        }
        "day_of" => zone::local(zone::instant(a)?, zone::zone(c)?).date().to_string(),
        "time_of" => zone::local(zone::instant(a)?, zone::zone(c)?).format("%H:%M").to_string(),
        "instant" => zone::instant_text(zone::at(zone::day(a)?, zone::time(b)?, zone::zone(c)?)?),
        "format" => zone::format_local(shown(a, c)?, b)?,
        _ => return Err(Error::Pattern(op.to_owned())),
    })
}

/// What to format: a day stands for itself, at midnight; an instant is looked at in the zone.
fn shown(when: &str, zone: &str) -> Result<NaiveDateTime, Error> {
    match zone::day(when) {
        Ok(day) => Ok(day.and_time(NaiveTime::MIN)),
        Err(_) => Ok(zone::local(zone::instant(when)?, zone::zone(zone)?)),
    }
}
