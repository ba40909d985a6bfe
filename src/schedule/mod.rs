//! Schedules as their makers use them: create, look, pause, resume, trigger, cancel. And [`scheduler`], the role that fires
//! them. Refuses to know of HTTP, of apps and of the queue's workers: a fire is a row in `jobs`, and somebody else rings.

mod look;
pub mod scheduler;

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use sqlx::PgPool;

pub use crate::store::{
    fires::Occurred,
    schedules::{Filter, Row},
};
use crate::{
    model::{
        clock::Clock,
        error::{Code, CtxError},
        id::{JobId, ScheduleId, UserId},
        policy::Policies,
        schedule::{Fault, Parts, State, Timing, Upcoming, Wanted, upcoming},
    },
    store::{self, enqueue, fires, notices, schedules},
};

/// The most schedules, or rows of the ledger, one page has.
pub const PAGE_MAX: u32 = 200;

/// The most schedules of one user, those of apps included. The last may be a few too many where several are made at once.
pub const USER_MAX: i64 = 1_000;

/// Rings for the queues in which jobs were made, after their commit; how many in each.
pub type Bell = Arc<dyn Fn(&BTreeMap<String, usize>) + Send + Sync>;

/// Why something was not done to a schedule.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such schedule, or it is somebody else's.
    #[error("there is no such schedule")]
    NotFound,
    /// It stands so that it cannot be done.
    #[error("{0}")]
    State(String),
    /// What was wanted cannot be meant.
    #[error("{}", words(.0))]
    Unfit(Vec<Fault>),
    /// The database.
    #[error(transparent)]
    Store(#[from] store::Error),
}

fn words(faults: &[Fault]) -> String {
    faults.iter().map(|fault| format!("{}: {}", fault.field, fault.message)).collect::<Vec<_>>().join("; ")
}

impl From<Error> for CtxError {
    fn from(error: Error) -> Self {
        match error {
            Error::Store(cause) => cause.into(),
            Error::NotFound => Self::new(Code::NotFound, error.to_string()),
            Error::State(message) => Self::new(Code::Conflict, message),
            Error::Unfit(ref faults) => {
                let list = faults.iter().map(
                    |fault| serde_json::json!({ "pointer": format!("/{}", fault.field), "message": fault.message }),
                );
                Self::new(Code::ValidationFailed, error.to_string()).with_details(list.collect())
            }
        }
    }
}

/// The schedules of a Krilin. Cheap to clone.
#[derive(Clone)]
pub struct Schedules {
    pool: PgPool,
    clock: Arc<dyn Clock>,
    policies: Policies,
    bell: Bell,
}

impl Schedules {
    /// Schedules in `pool`, whose jobs are of the kinds of `policies`.
    pub fn new(pool: &PgPool, clock: Arc<dyn Clock>, policies: Policies, bell: Bell) -> Self {
        Self { pool: pool.clone(), clock, policies, bell }
    }

    /// Makes a schedule, or replaces the one of the same user, app and name. Refuses a name that another maker has taken.
    pub async fn create(&self, wanted: Wanted) -> Result<Row, Error> {
        let user = wanted.user_id;
        if let Some(user) = user
            && schedules::count(&self.pool, user).await? >= USER_MAX
        {
            return Err(Error::State(format!("a user has {USER_MAX} schedules at most; cancel some")));
        }
        let (now, zone) = schedules::here(&self.pool, user).await?;
        let decided =
            wanted.decide(ScheduleId::new(self.clock.as_ref()), now, zone.as_deref()).map_err(Error::Unfit)?;
        let made = schedules::upsert(&self.pool, std::slice::from_ref(&decided)).await?;
        let taken = || Error::State(format!("another schedule is named `{}` already, and not by you", decided.name));
        let (id, _) = made.first().copied().ok_or_else(taken)?;
        self.get(id, user).await
    }

    /// The schedule `id`; only if it is `user`'s, where one is given.
    pub async fn get(&self, id: ScheduleId, user: Option<UserId>) -> Result<Row, Error> {
        schedules::find(&self.pool, id, user).await?.ok_or(Error::NotFound)
    }

    /// Schedules, newest first, at most `limit` (and [`PAGE_MAX`]); with the last one's id as `before` the next page.
    pub async fn list(&self, filter: &Filter, before: Option<ScheduleId>, limit: u32) -> Result<Vec<Row>, Error> {
        Ok(schedules::list(&self.pool, filter, before, i64::from(limit.min(PAGE_MAX))).await?)
    }

    /// The next fires of a schedule, with the jumps of its clock marked; none while it is not active.
    pub async fn upcoming(&self, row: &Row) -> Result<Vec<Upcoming>, Error> {
        let (now, _) = schedules::here(&self.pool, None).await?;
        let timing = timing(row).map_err(|fault| Error::State(fault.message))?;
        Ok(if row.state == State::Active.as_str() { upcoming(&timing, now, row.next_at) } else { Vec::new() })
    }

    /// The ledger of a schedule, newest first, before the nominal instant `before`.
    pub async fn ledger(
        &self,
        id: ScheduleId,
        before: Option<DateTime<Utc>>,
        limit: u32,
    ) -> Result<Vec<Occurred>, Error> {
        Ok(fires::ledger(&self.pool, id, before, i64::from(limit.min(PAGE_MAX))).await?)
    }

    /// Lets a schedule rest. What falls into the pause is skipped.
    pub async fn pause(&self, row: &Row, reason: &str) -> Result<(), Error> {
        let turned = (&[State::Active, State::Parked][..], State::Paused);
        if schedules::turn(&self.pool, row.id, turned, Some(reason)).await? {
            return Ok(());
        }
        Err(Error::State(format!("only an active schedule can be paused; this one is {}", row.state)))
    }

    /// Lets a paused or parked schedule go on.
    pub async fn resume(&self, row: &Row) -> Result<(), Error> {
        if let Err(fault) = timing(row) {
            return Err(Error::State(fault.message));
        }
        let turned = (&[State::Paused, State::Parked][..], State::Active);
        if schedules::turn(&self.pool, row.id, turned, None).await? {
            // A hint: they look by themselves as well.
            if let Err(error) = notices::notify_schedules(&self.pool).await {
                tracing::debug!(%error, "the schedulers were not told; they look by themselves");
            }
            return Ok(());
        }
        Err(Error::State(format!("only a paused or parked schedule can go on; this one is {}", row.state)))
    }

    /// Forgets a schedule. Its jobs and its ledger stay.
    pub async fn cancel(&self, row: &Row) -> Result<(), Error> {
        if schedules::delete(&self.pool, row.id).await? { Ok(()) } else { Err(Error::NotFound) }
    }

    /// Fires now, whatever the clock says and whether or not the job before has ended; gives the job. Its ledger row has
    /// this instant as the nominal one.
    pub async fn trigger(&self, row: &Row) -> Result<JobId, Error> {
        let mut tx = store::within(self.pool.begin()).await?;
        let (now, _) = schedules::here(&mut *tx, None).await?;
        let made = look::by_hand(row, now, &self.policies, self.clock.as_ref()).map_err(Error::State)?;
        let queue = made.job.queue.clone();
        if fires::record(&mut *tx, std::slice::from_ref(&made.occurrence)).await?.is_empty() {
            return Err(Error::State("it has just fired at this very instant; try again".to_owned()));
        }
        enqueue::insert(&mut tx, &[&made.job]).await?;
        if !fires::triggered(&mut *tx, row.id, made.job.id).await? {
            return Err(Error::NotFound);
        }
        store::within(tx.commit()).await?;
        (self.bell)(&BTreeMap::from([(queue, 1)]));
        Ok(made.job.id)
    }
}

/// The timing of a stored schedule.
pub fn timing(row: &Row) -> Result<Timing, Fault> {
    let parts = Parts {
        cron: row.cron.as_deref(),
        every_ms: row.every_ms,
        once_at: row.once_at,
        anchor_at: row.anchor_at,
        timezone: &row.timezone,
        user_zone: row.user_zone.as_deref().or_else(|| row.user_id.is_none().then_some("UTC")),
        bounds: (row.starts_at, row.ends_at),
        jitter_ms: row.jitter_ms,
    };
    parts.timing(row.id)
}
