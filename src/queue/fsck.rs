//! Looks whether the queue's invariants hold, on a live database, all in one snapshot. Refuses to change anything: what is
//! broken is told, with what to do about it.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgConnection;

use crate::{
    model::policy::GRACE_LONGEST,
    store::{
        Error,
        fsck::{self, Bounds, INVARIANTS, Invariant},
    },
};

/// How long after its end a lease may lie untouched: a look of the reaper, its hold-off after an outage, and some pages of
/// leases before this one.
pub const LEASE_OVERDUE: Duration = Duration::from_secs(15);
/// How long after its time a job may still be scheduled: a look of the promoter, and some pages before this job.
pub const PROMOTION_OVERDUE: Duration = Duration::from_secs(15);
/// Days after today that must have their partition: a retention job that fails has so long to get through.
pub const DAYS_AHEAD: i32 = 2;
/// The longest one statement may run, unless the caller says otherwise.
pub const TIMEOUT: Duration = Duration::from_mins(1);

/// One invariant, looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its name.
    pub name: &'static str,
    /// What should hold.
    pub promise: &'static str,
    /// How many offenders there are; none when it could not be looked at.
    pub count: Option<i64>,
    /// The first few of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<String>,
    /// Why it could not be looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
    /// What to do, where there is something to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<&'static str>,
}

impl Finding {
    /// Whether the invariant was looked at and holds.
    pub fn holds(&self) -> bool {
        self.count == Some(0)
    }
}

/// Bounds for a queue whose retention keeps keys and history so long.
pub fn bounds(keys_kept: Duration, history_kept: Duration, timeout: Duration) -> Bounds {
    Bounds {
        lease_overdue: LEASE_OVERDUE,
        promotion_overdue: PROMOTION_OVERDUE,
        keys_kept,
        history_kept,
        grace_longest: GRACE_LONGEST,
        days_ahead: DAYS_AHEAD,
        timeout,
    }
}

/// Looks at every invariant. An error means that the database went away in between.
pub async fn check(db: &mut PgConnection, bounds: &Bounds) -> Result<Vec<Finding>, Error> {
    fsck::begin(db, bounds.timeout).await?;
    let mut findings = Vec::with_capacity(INVARIANTS.len());
    for invariant in INVARIANTS {
        let Invariant { name, promise, remedy, .. } = *invariant;
        let sound = Finding { name, promise, count: Some(0), examples: Vec::new(), unknown: None, remedy: None };
        findings.push(match fsck::breach(db, invariant, bounds).await {
            Ok(breach) if breach.count == 0 => sound,
            Ok(breach) => {
                Finding { count: Some(breach.count), examples: breach.examples, remedy: Some(remedy), ..sound }
            }
            Err(error) => Finding { count: None, unknown: Some(error.to_string()), ..sound },
        });
    }
    fsck::end(db).await?;
    Ok(findings)
}
