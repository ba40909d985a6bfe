//! Schedules can be read, fire at some time, and not more than once a minute (E109).

use std::time::Duration;

use super::names::Names;
use crate::model::manifest::{
    cron,
    period::Period,
    problem::{Problem, ProblemCode},
    view::View,
};

/// The shortest time between two runs of a schedule.
const SHORTEST: Duration = Duration::from_mins(1);

pub(super) fn check(root: &View<'_>, _: &Names<'_>, problems: &mut Vec<Problem>) {
    for schedule in root.items("schedules") {
        if let Some(line) = schedule.at("cron")
            && let Some(Err(words)) = line.as_text().map(cron::parse)
        {
            problems.push(line.problem(ProblemCode::BadSchedule, words));
        }
        if let Some(every) = schedule.at("every")
            && let Some(Ok(period)) = every.as_text().map(str::parse::<Period>)
            && period.duration() < SHORTEST
        {
            let words = format!("`{period}` is more often than once a minute, the most a schedule may fire");
            problems.push(every.problem(ProblemCode::BadSchedule, words));
        }
        if let Some(zone) = schedule.at("timezone")
            && let Some(name) = zone.as_text().filter(|name| *name != "user" && name.parse::<chrono_tz::Tz>().is_err())
        {
            let words = format!("`{name}` is not `user` and no time zone such as `Europe/Berlin`");
            problems.push(zone.problem(ProblemCode::BadSchedule, words));
        }
    }
}
