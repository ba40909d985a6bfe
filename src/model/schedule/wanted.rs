//! From what somebody wants to a row: reads the clockwork, the zone and the bounds, names every fault, reckons the first
//! fire. Pure. Refuses nothing about the job itself: whoever asks has checked it.

use std::time::Duration;

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde_json::Value;

use super::{
    CatchUp, Origin, Overlap, State,
    line::Line,
    timing::{EVERY_SHORTEST, Timing, When},
};
use crate::model::id::{AppId, ScheduleId, UserId};

/// What stands for the zone of a schedule's user.
pub const USER_ZONE: &str = "user";
/// The longest name of a schedule, in characters.
const NAME_MAX: usize = 100;
/// The longest cron line, in bytes.
const CRON_MAX: usize = 120;

/// The clockwork as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clockwork {
    /// A cron line.
    Cron(String),
    /// Every so long.
    Every(Duration),
    /// At one instant.
    Once(DateTime<Utc>),
}

/// A schedule as somebody wants it.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// For whom.
    pub user_id: Option<UserId>,
    /// For which app.
    pub app_id: Option<AppId>,
    /// What its maker calls it; one of this name is replaced. Its id, unless given.
    pub name: Option<String>,
    /// Who makes it.
    pub origin: Origin,
    /// The kind of its jobs.
    pub kind: String,
    /// What they are given.
    pub args: Value,
    /// The clockwork.
    pub clockwork: Clockwork,
    /// [`USER_ZONE`] or an IANA zone.
    pub timezone: String,
    /// No fire before.
    pub starts_at: Option<DateTime<Utc>>,
    /// No fire after.
    pub ends_at: Option<DateTime<Utc>>,
    /// The longest delay.
    pub jitter: Duration,
    /// What becomes of missed fires.
    pub catch_up: CatchUp,
    /// What happens when the job before is not done.
    pub overlap: Overlap,
    /// The most jobs.
    pub max_runs: Option<u32>,
    /// Dead jobs in a row that pause it.
    pub pause_after: Option<u32>,
    /// Why it is off, where a setting switches it off.
    pub off: Option<String>,
}

/// A part that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field.
    pub field: &'static str,
    /// What is wrong with it.
    pub message: String,
}

/// A schedule as it is written, everything decided.
#[derive(Debug, Clone)]
pub struct Decided {
    /// Its id, unless one of the same name is there.
    pub id: ScheduleId,
    /// For whom.
    pub user_id: Option<UserId>,
    /// For which app.
    pub app_id: Option<AppId>,
    /// What its maker calls it.
    pub name: String,
    /// Who made it.
    pub origin: Origin,
    /// The kind of its jobs.
    pub kind: String,
    /// What they are given.
    pub args: Value,
    /// A cron line, or none.
    pub cron: Option<String>,
    /// A period in milliseconds, or none.
    pub every_ms: Option<i64>,
    /// One instant, or none.
    pub once_at: Option<DateTime<Utc>>,
    /// `user` or an IANA zone.
    pub timezone: String,
    /// From when on periods are counted.
    pub anchor_at: DateTime<Utc>,
    /// No fire before.
    pub starts_at: Option<DateTime<Utc>>,
    /// No fire after.
    pub ends_at: Option<DateTime<Utc>>,
    /// The longest delay.
    pub jitter_ms: i64,
    /// What becomes of missed fires.
    pub catch_up: CatchUp,
    /// What happens when the job before is not done.
    pub overlap: Overlap,
    /// The most jobs.
    pub max_runs: Option<i32>,
    /// Failures in a row that pause it.
    pub pause_after: Option<i32>,
    /// Where it begins.
    pub state: State,
    /// Why, where that is not `active`.
    pub reason: Option<String>,
    /// Its first nominal fire.
    pub next_at: Option<DateTime<Utc>>,
    /// When that is due.
    pub due_at: Option<DateTime<Utc>>,
    /// The release of the zone data.
    pub tzdata: String,
}

impl Wanted {
    /// A schedule of `kind` with the defaults of everything that may be left out.
    pub fn new(origin: Origin, kind: &str, clockwork: Clockwork) -> Self {
        Self {
            user_id: None,
            app_id: None,
            name: None,
            origin,
            kind: kind.to_owned(),
            args: Value::Object(serde_json::Map::new()),
            clockwork,
            timezone: USER_ZONE.to_owned(),
            starts_at: None,
            ends_at: None,
            jitter: Duration::ZERO,
            catch_up: CatchUp::default(),
            overlap: Overlap::default(),
            max_runs: None,
            pause_after: None,
            off: None,
        }
    }

    /// The row, with its first fire after `now`; or everything that is wrong. A zone of the user that nobody knows is no
    /// fault of the wish: the row is parked.
    pub fn decide(self, id: ScheduleId, now: DateTime<Utc>, user_zone: Option<&str>) -> Result<Decided, Vec<Fault>> {
        let mut faults = self.faults(now);
        let (cron, every_ms, once_at) = match &self.clockwork {
            Clockwork::Cron(line) => (Some(line.clone()), None, None),
            Clockwork::Every(period) => (None, Some(millis(*period)), None),
            Clockwork::Once(at) => (None, None, Some(*at)),
        };
        let parts = Parts {
            cron: cron.as_deref(),
            every_ms,
            once_at,
            anchor_at: now,
            timezone: &self.timezone,
            user_zone: user_zone.or_else(|| self.user_id.is_none().then_some("UTC")),
            bounds: (self.starts_at, self.ends_at),
            jitter_ms: millis(self.jitter),
        };
        let timing = parts.timing(id);
        if let Err(fault) = &timing
            && !(fault.field == "timezone" && self.timezone == USER_ZONE)
        {
            faults.push(fault.clone());
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let first = |timing: &Timing| if let When::Once(at) = timing.when { Some(at) } else { timing.next(now) };
        let next_at = timing.as_ref().ok().and_then(first);
        let (state, reason) = match (&self.off, &timing, next_at) {
            (Some(off), ..) => (State::Off, Some(off.clone())),
            (None, Err(fault), _) => (State::Parked, Some(fault.message.clone())),
            (None, Ok(_), None) => (State::Ended, Some("it never fires".to_owned())),
            (None, Ok(_), Some(_)) => (State::Active, None),
        };
        let due_at = timing.ok().zip(next_at).map(|(timing, next)| timing.due(next));
        Ok(Decided {
            id,
            user_id: self.user_id,
            app_id: self.app_id,
            name: self.name.unwrap_or_else(|| id.to_string()),
            origin: self.origin,
            kind: self.kind,
            args: self.args,
            cron,
            every_ms,
            once_at,
            timezone: self.timezone,
            anchor_at: now,
            starts_at: self.starts_at,
            ends_at: self.ends_at,
            jitter_ms: millis(self.jitter),
            catch_up: self.catch_up,
            overlap: self.overlap,
            max_runs: self.max_runs.map(whole),
            pause_after: self.pause_after.map(whole),
            state,
            reason,
            next_at,
            due_at: due_at.filter(|_| state == State::Active),
            tzdata: TZDATA.to_owned(),
        })
    }

    fn faults(&self, now: DateTime<Utc>) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut wrong = |field, message: String| faults.push(Fault { field, message });
        if self.name.as_ref().is_some_and(|name| !(1..=NAME_MAX).contains(&name.chars().count()) || name.contains('\0'))
        {
            wrong("name", format!("a name has 1 to {NAME_MAX} characters"));
        }
        if self.ends_at.is_some_and(|end| end <= self.starts_at.unwrap_or(now).max(now)) {
            wrong("ends_at", "the end must lie after the start and in the future".to_owned());
        }
        if self.max_runs == Some(0) {
            wrong("max_runs", "at least one run is needed".to_owned());
        }
        if self.pause_after == Some(0) {
            wrong("pause_after", "at least one failure is needed".to_owned());
        }
        faults
    }
}

/// The release of the zone data in this binary.
pub const TZDATA: &str = chrono_tz::IANA_TZDB_VERSION;

/// A clockwork with its zone and bounds, as a row has them.
#[derive(Debug, Clone, Copy)]
pub struct Parts<'a> {
    /// The cron line.
    pub cron: Option<&'a str>,
    /// The period.
    pub every_ms: Option<i64>,
    /// The one instant.
    pub once_at: Option<DateTime<Utc>>,
    /// From when on periods are counted.
    pub anchor_at: DateTime<Utc>,
    /// [`USER_ZONE`] or an IANA zone.
    pub timezone: &'a str,
    /// What [`USER_ZONE`] means here.
    pub user_zone: Option<&'a str>,
    /// No fire before and none after.
    pub bounds: (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
    /// The longest delay.
    pub jitter_ms: i64,
}

impl Parts<'_> {
    /// The timing; or which part cannot be worked out.
    pub fn timing(&self, id: ScheduleId) -> Result<Timing, Fault> {
        let when = match (self.cron, self.every_ms, self.once_at) {
            (Some(line), ..) if line.len() > CRON_MAX => {
                return Err(Fault { field: "cron", message: format!("a cron line has at most {CRON_MAX} bytes") });
            }
            (Some(line), ..) => {
                let line = Line::parse(line).map_err(|message| Fault { field: "cron", message })?;
                When::Cron(Box::new(line))
            }
            (None, Some(every), _) => {
                let period = Duration::from_millis(u64::try_from(every).unwrap_or(0));
                if period < EVERY_SHORTEST {
                    let message = format!("a period is at least {} s", EVERY_SHORTEST.as_secs());
                    return Err(Fault { field: "every", message });
                }
                When::Every { period, anchor: self.anchor_at }
            }
            (None, None, Some(at)) => When::Once(at),
            (None, None, None) => {
                return Err(Fault { field: "cron", message: "a schedule has `cron`, `every` or `at`".to_owned() });
            }
        };
        let name = if self.timezone == USER_ZONE { self.user_zone.unwrap_or("") } else { self.timezone };
        // Only a cron line hangs on a wall; a period and an instant are the same everywhere.
        let zone = match name.parse::<Tz>() {
            Ok(zone) => zone,
            Err(_) if !matches!(when, When::Cron(_)) && self.timezone == USER_ZONE => Tz::UTC,
            Err(_) => {
                let message = format!("`{name}` is no time zone that this Krilin knows, such as `Europe/Berlin`");
                return Err(Fault { field: "timezone", message });
            }
        };
        let jitter = Duration::from_millis(u64::try_from(self.jitter_ms).unwrap_or(0));
        Ok(Timing { id, when, zone, starts_at: self.bounds.0, ends_at: self.bounds.1, jitter })
    }
}

fn millis(length: Duration) -> i64 {
    i64::try_from(length.as_millis()).unwrap_or(i64::MAX)
}

fn whole(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
