//! Schedules as answers: one, many, the next fires, and what was done to one.

use std::{fmt, time::Duration};

use serde::{Serialize, Serializer};

use crate::{
    cli::table::Table,
    model::{
        duration::HumanDuration,
        id::{JobId, ScheduleId},
        schedule::Upcoming,
    },
    schedule::{Occurred, Row},
    web::schedule::{Occurrence, Schedule},
};

/// A schedule in JSON as the API has it.
#[derive(Debug)]
pub(super) struct Scheduled(pub(super) Row);

impl Serialize for Scheduled {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Schedule::from(self.0.clone()).serialize(serializer)
    }
}

/// The clockwork in words.
fn clockwork(row: &Row) -> String {
    let every = row.every_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0)));
    match (&row.cron, every, row.once_at) {
        (Some(line), ..) => format!("{line} ({})", row.timezone),
        (None, Some(every), _) => format!("every {}", HumanDuration(every)),
        (None, None, at) => at.map(|at| format!("once at {}", at.to_rfc3339())).unwrap_or_default(),
    }
}

/// One schedule with its latest fires.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    schedule: Scheduled,
    occurrences: Vec<Occurrence>,
}

impl Shown {
    pub(super) fn new(row: Row, fires: Vec<Occurred>) -> Self {
        Self { schedule: Scheduled(row), occurrences: fires.into_iter().map(Occurrence::from).collect() }
    }
}

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = &self.schedule.0;
        let mut table = Table::new(&["SCHEDULE", ""]);
        table.row(["id".to_owned(), row.id.to_string()]);
        table.row(["name".to_owned(), row.name.clone()]);
        table.row(["when".to_owned(), clockwork(row)]);
        table.row(["job".to_owned(), format!("{} {}", row.kind, row.args)]);
        table.row(["state".to_owned(), row.state.clone()]);
        let optional = [
            ("because", row.reason.clone()),
            ("user", row.user_id.map(|user| user.to_string())),
            ("app", row.app_id.clone()),
            ("made by", Some(row.origin.clone())),
            ("next", row.next_at.map(|at| at.to_rfc3339())),
            ("from", row.starts_at.map(|at| at.to_rfc3339())),
            ("until", row.ends_at.map(|at| at.to_rfc3339())),
            ("runs", Some(most(row.run_count, row.max_runs))),
            ("failures", Some(most(row.failure_count, row.pause_after)).filter(|_| row.pause_after.is_some())),
            ("missed fires", Some(row.catch_up.clone())),
            ("overlap", Some(row.overlap.clone())),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                table.row([name.to_owned(), value]);
            }
        }
        table.fmt(f)?;
        if self.occurrences.is_empty() {
            return f.write_str("\n\nIt has not fired yet.");
        }
        let mut table = Table::new(&["MEANT FOR", "OUTCOME", "LATE", "MISSED", "JOB OR REASON"]);
        for one in &self.occurrences {
            let why = one.job_id.map(|job| job.to_string()).or_else(|| one.reason.clone()).unwrap_or_default();
            let late = format!("{} ms", one.late_ms);
            table.row([one.nominal_at.to_rfc3339(), one.outcome.clone(), late, one.missed.to_string(), why]);
        }
        write!(f, "\n\n{table}")
    }
}

fn most(count: i32, most: Option<i32>) -> String {
    most.map_or_else(|| count.to_string(), |most| format!("{count} of {most}"))
}

/// Schedules as an answer.
#[derive(Debug, Serialize)]
pub(super) struct Schedules {
    pub(super) schedules: Vec<Scheduled>,
    pub(super) next_cursor: Option<ScheduleId>,
}

impl fmt::Display for Schedules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.schedules.is_empty() {
            return f.write_str("There are no such schedules.");
        }
        let mut table = Table::new(&["ID", "NAME", "APP", "WHEN", "STATE", "NEXT", "RUNS"]);
        for Scheduled(row) in &self.schedules {
            let next = row.next_at.map(|at| at.format("%Y-%m-%d %H:%M:%S").to_string());
            let next = next.or_else(|| row.reason.clone()).unwrap_or_default();
            let app = row.app_id.clone().unwrap_or_default();
            let (id, runs) = (row.id.to_string(), row.run_count.to_string());
            table.row([id, row.name.clone(), app, clockwork(row), row.state.clone(), next, runs]);
        }
        table.fmt(f)?;
        match self.next_cursor {
            Some(id) => write!(f, "\nMore: krilin schedule list --before {id}"),
            None => Ok(()),
        }
    }
}

/// The next fires as an answer.
#[derive(Debug, Serialize)]
pub(super) struct Next {
    pub(super) name: String,
    pub(super) state: String,
    pub(super) reason: Option<String>,
    pub(super) fires: Vec<Upcoming>,
}

impl fmt::Display for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fires.is_empty() {
            let reason = self.reason.as_deref().unwrap_or("no further fire is to come");
            return write!(f, "`{}` is {}: {reason}.", self.name, self.state);
        }
        let mut table = Table::new(&["ON ITS CLOCK", "IN UTC", ""]);
        for fire in &self.fires {
            let moved = fire.clock_moves_minutes.map(|minutes| match minutes {
                ..0 => format!("the clock goes back by {} min before", -minutes),
                _ => format!("the clock goes ahead by {minutes} min before"),
            });
            let utc = fire.due_at.format("%Y-%m-%d %H:%M:%S").to_string();
            table.row([fire.local.clone(), utc, moved.unwrap_or_default()]);
        }
        table.fmt(f)
    }
}

/// That a schedule is gone.
#[derive(Debug, Serialize)]
pub(super) struct Cancelled {
    pub(super) id: ScheduleId,
    pub(super) name: String,
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is cancelled; its jobs stay.", self.name)
    }
}

/// That a schedule has fired by hand.
#[derive(Debug, Serialize)]
pub(super) struct Triggered {
    pub(super) id: ScheduleId,
    pub(super) name: String,
    pub(super) job_id: JobId,
}

impl fmt::Display for Triggered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` has fired: job {}", self.name, self.job_id)
    }
}
