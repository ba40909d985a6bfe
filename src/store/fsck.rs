//! The queue's invariants as statements that find where they do not hold. Refuses to repair anything, and to give an
//! endless list: each finds a count and a few examples.

use std::time::Duration;

use sqlx::{PgConnection, postgres::types::PgInterval};

use super::Error;

/// How many offenders are named; all are counted.
const EXAMPLES: i64 = 5;
/// What an answer may take beyond the statement's own timeout before nobody waits for it any more.
const ANSWER_SLACK: Duration = Duration::from_secs(5);

/// One thing that holds on a sound database.
#[derive(Debug, Clone, Copy)]
pub struct Invariant {
    /// Its name, stable for programs.
    pub name: &'static str,
    /// What holds, as a sentence without a full stop.
    pub promise: &'static str,
    /// What to do where it does not.
    pub remedy: &'static str,
    /// One row `what` for each offender. The row `bound` is in scope; see [`Bounds`].
    breaches: &'static str,
}

/// The numbers that invariants are judged by, as the columns of the row `bound`.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// How long after its end a lease may lie untouched: the reaper's looks, and its hold-off after an outage.
    pub lease_overdue: Duration,
    /// How long after its time a scheduled job may still be scheduled: the promoter's looks.
    pub promotion_overdue: Duration,
    /// How long idempotency keys are kept.
    pub keys_kept: Duration,
    /// How long ended jobs are kept.
    pub history_kept: Duration,
    /// The longest that a job may go on after it was to stop.
    pub grace_longest: Duration,
    /// Days after today that must have their partition.
    pub days_ahead: i32,
    /// The longest that one statement may run.
    pub timeout: Duration,
}

/// Where an invariant does not hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Breach {
    /// How many offenders there are.
    pub count: i64,
    /// The first few.
    pub examples: Vec<String>,
}

/// What can be done about a row that no statement of ours writes.
const BY_HAND: &str =
    "no statement of Krilin's writes such a row: find out who did, stop the workers, and correct it by hand";
/// What can be done about a queue that nobody looks after.
const NO_WORKER: &str =
    "no worker looks after the queue, or its database calls fail: start `krilin work`, read its log";
/// What can be done about a history that nobody looks after.
const NO_RETENTION: &str = "the day's retention job does not get through: `krilin job list --kind retention`, then `krilin job enqueue retention`";

/// All of them, cheapest first.
pub const INVARIANTS: &[Invariant] = &[
    Invariant {
        name: "running_has_lease",
        promise: "a job is running exactly when it has a lease with a token, an end and a worker",
        remedy: BY_HAND,
        breaches: "select format('job %s is %s with token %s until %s of worker %s', id, state,
                       coalesce(lease_token::text, 'none'), coalesce(lease_until::text, 'never'),
                       coalesce(worker_id::text, 'none'))
                   from krilin.jobs
                   where case state when 'running'
                         then lease_token is null or lease_until is null or worker_id is null
                         else lease_token is not null or lease_until is not null end",
    },
    Invariant {
        name: "lease_is_taken_back",
        promise: "a lease that ran out is taken back within seconds",
        remedy: NO_WORKER,
        breaches: "select format('job %s: its lease ran out at %s', id, lease_until)
                   from krilin.jobs, bound
                   where state = 'running' and lease_until < krilin.now() - bound.lease_overdue
                   order by lease_until",
    },
    Invariant {
        name: "scheduled_is_promoted",
        promise: "a scheduled job is ready within seconds of its time",
        remedy: NO_WORKER,
        breaches: "select format('job %s was due at %s', id, run_at)
                   from krilin.jobs, bound
                   where state = 'scheduled' and run_at < krilin.now() - bound.promotion_overdue
                   order by run_at",
    },
    Invariant {
        name: "attempts_are_bounded",
        promise: "no live job has begun more attempts than it may, and none waits that has no attempt left",
        remedy: BY_HAND,
        breaches: "select format('job %s is %s at attempt %s of %s', id, state, attempt, max_attempts)
                   from krilin.jobs
                   where attempt > max_attempts or state <> 'running' and attempt >= max_attempts",
    },
    Invariant {
        name: "unique_key_is_unique",
        promise: "at most one live job has a unique key",
        remedy: "the index jobs_unique_key is damaged or missing: cancel all but one of them, then reindex",
        breaches: "select format('%s live jobs have the unique key %s', count(*), unique_key)
                   from krilin.jobs where unique_key is not null
                   group by unique_key having count(*) > 1",
    },
    Invariant {
        name: "stopped_in_time",
        promise: "a job whose time to stop has come is live for no longer than its grace",
        remedy: NO_WORKER,
        breaches: "select format('job %s was to stop at %s', id, stop_at)
                   from krilin.jobs, bound
                   where stop_at < krilin.now() - bound.grace_longest - bound.lease_overdue
                   order by stop_at",
    },
    Invariant {
        name: "parked_waits_for_somebody",
        promise: "a parked job waits for jobs that have not ended",
        remedy: BY_HAND,
        breaches: "select format('job %s waits for jobs, and there are none that have not ended', j.id)
                   from krilin.jobs j, bound
                   where j.state = 'parked'
                     and not exists (select from krilin.jobs c where c.parent_id = j.id)
                     and not exists (
                         select from krilin.job_history c
                         where c.parent_id = j.id and c.finished_at > krilin.now() - bound.promotion_overdue)",
    },
    Invariant {
        name: "limits_hold",
        promise: "no more jobs of a queue, of a user or with a key run than the settings allow",
        remedy: BY_HAND,
        // More may run on after a limit was lowered: only what began since then speaks against it.
        breaches: "with running as (
                       select j.queue, j.user_id, j.concurrency_key, j.started_at > q.updated_at + bound.lease_overdue as since
                       from bound, krilin.jobs j left join krilin.queues q on q.name = j.queue
                       where j.state = 'running'),
                   counted (subject, queue, key, n, since, most) as (
                       select 'all queues', 'all', null, count(*), bool_or(j.started_at > q.updated_at + bound.lease_overdue),
                           q.max_running
                       from bound, krilin.jobs j, krilin.queues q
                       where j.state = 'running' and q.name = 'all' group by q.name
                       union all
                       select format('queue %s', r.queue), r.queue, null, count(*), bool_or(r.since), q.max_running
                       from running r join krilin.queues q on q.name = r.queue group by r.queue, q.name
                       union all
                       select format('user %s in queue %s', r.user_id, r.queue), r.queue, null, count(*), bool_or(r.since),
                           coalesce(u.max_running, q.max_running_per_user)
                       from running r join krilin.queues q on q.name = r.queue
                       left join krilin.queue_users u on u.queue = r.queue and u.user_id = r.user_id
                       where r.user_id is not null group by r.queue, r.user_id, u.queue, u.user_id, q.name
                       union all
                       select format('the key %s in queue %s', r.concurrency_key, r.queue), r.queue, r.concurrency_key, count(*),
                           bool_or(coalesce(r.since, true)), coalesce(k.max_running, q.max_running_per_key, 1)
                       from running r left join krilin.queues q on q.name = r.queue
                       left join krilin.queue_keys k on k.queue = r.queue and k.key = r.concurrency_key
                       where r.concurrency_key is not null
                       group by r.queue, r.concurrency_key, k.queue, k.key, q.name)
                   select format('%s jobs of %s run, and %s may', n, subject, most)
                   from counted where n > most and since",
    },
    Invariant {
        name: "rates_hold",
        promise: "no more was started in the present window of an exact rate than the rate allows",
        remedy: BY_HAND,
        breaches: "select format('%s units of queue %s (%s) were started within %s, and %s may be', sum(s.units), s.queue,
                       coalesce(nullif(s.subject, ''), 'as a whole'), min(period), min(most))
                   from bound, krilin.rate_spent s join krilin.queues q on q.name = s.queue,
                       lateral (select krilin.window_of(q, s.subject) as period, case when s.subject = '' then q.rate_units
                           when s.subject like 'user:%' then q.user_rate_units else q.key_rate_units end as most) as rate
                   where s.at > krilin.now() - period and s.at > q.updated_at + bound.lease_overdue
                   group by s.queue, s.subject having sum(s.units) > min(most)",
    },
    Invariant {
        name: "spent_is_forgotten",
        promise: "units that no window of a rate reaches any more are forgotten within days",
        remedy: NO_RETENTION,
        breaches: "select format('%s units of queue %s (%s), started at %s', s.units, s.queue,
                       coalesce(nullif(s.subject, ''), 'as a whole'), s.at)
                   from bound, krilin.rate_spent s left join krilin.queues q on q.name = s.queue
                   where s.at < krilin.now() - coalesce(krilin.window_of(q, s.subject), interval '0')
                       - make_interval(days => bound.days_ahead)
                   order by s.at",
    },
    Invariant {
        name: "schedule_is_in_its_ledger",
        promise: "the latest job of a schedule stands in its ledger",
        remedy: BY_HAND,
        breaches: "select format('schedule %s (%s) made job %s at %s, which its ledger does not know', s.id, s.name,
                       s.last_job_id, s.last_fired_at)
                   from krilin.schedules s, bound
                   where s.last_job_id is not null
                     and s.last_fired_at > krilin.now() - bound.history_kept + interval '1 hour'
                     and not exists (
                         select from krilin.occurrences o where o.schedule_id = s.id and o.job_id = s.last_job_id)",
    },
    Invariant {
        name: "schedule_is_looked_at",
        promise: "an active schedule has a next fire, and is looked at within a minute of its time",
        remedy: "no scheduler looks: start `krilin schedule run`, or `krilin up`; read its log",
        breaches: "select format('schedule %s (%s) was due at %s', id, name, coalesce(due_at::text, 'no time'))
                   from krilin.schedules
                   where state = 'active' and (due_at is null or due_at < krilin.now() - interval '1 minute')
                   order by due_at",
    },
    Invariant {
        name: "occurrence_has_job",
        promise: "a fire of a schedule names a job that is live or in the history",
        remedy: BY_HAND,
        breaches: "select format('schedule %s fired for %s as job %s, which is not there', o.schedule_id, o.nominal_at,
                       o.job_id)
                   from krilin.occurrences o, bound
                   where o.outcome = 'fired' and o.fired_at > krilin.now() - bound.history_kept
                     and not exists (select from krilin.jobs j where j.id = o.job_id)
                     and not exists (select from krilin.job_history h where h.id = o.job_id)",
    },
    Invariant {
        name: "partition_for_coming_days",
        promise: "today and the coming days have their partition of the history",
        remedy: NO_RETENTION,
        breaches: "select format('there is no partition for %s', day)
                   from bound, generate_series(0, bound.days_ahead) as ahead,
                       lateral (select (krilin.now() at time zone 'UTC')::date + ahead as day) as days
                   where to_regclass('krilin.job_history_' || to_char(day, 'YYYYMMDD')) is null
                   order by day",
    },
    Invariant {
        name: "history_is_dropped",
        promise: "partitions of the history go when their time is over",
        remedy: NO_RETENTION,
        breaches: "select format('%s is still there', child.relname)
                   from bound, pg_inherits
                   join pg_class child on child.oid = pg_inherits.inhrelid
                   where pg_inherits.inhparent = 'krilin.job_history'::regclass
                     and child.relname ~ '^job_history_[0-9]{8}$'
                     and to_date(right(child.relname, 8), 'YYYYMMDD')
                         < ((krilin.now() - bound.history_kept) at time zone 'UTC')::date - 2
                   order by child.relname",
    },
    Invariant {
        name: "default_partition_is_empty",
        promise: "every ended job lies in the partition of its day",
        remedy: "no partition was there when they ended; they are dropped by age. Until then the day of these rows can have no partition",
        breaches: "select format('job %s, ended at %s', id, finished_at)
                   from krilin.job_history_default order by finished_at",
    },
    Invariant {
        name: "idempotency_key_has_job",
        promise: "an idempotency key names a job that is live or in the history",
        remedy: BY_HAND,
        breaches: "select format('the key %s names job %s, which is not there', k.key, k.job_id)
                   from krilin.idempotency_keys k, bound
                   where k.created_at > krilin.now() - least(bound.keys_kept, bound.history_kept)
                     and not exists (select from krilin.jobs j where j.id = k.job_id)
                     and not exists (select from krilin.job_history h where h.id = k.job_id)",
    },
    Invariant {
        name: "child_has_parent",
        promise: "a job that was made by another names one that is live or in the history",
        remedy: BY_HAND,
        breaches: "select format('job %s names the parent %s, which is not there', j.id, j.parent_id)
                   from krilin.jobs j, bound
                   where j.parent_id is not null and j.created_at > krilin.now() - bound.history_kept
                     and not exists (select from krilin.jobs p where p.id = j.parent_id)
                     and not exists (select from krilin.job_history p where p.id = j.parent_id)",
    },
    Invariant {
        name: "job_is_live_or_ended",
        promise: "no job is both live and in the history",
        remedy: BY_HAND,
        breaches: "select format('job %s is %s and has ended as %s', id, j.state, h.state)
                   from krilin.jobs j join krilin.job_history h using (id)",
    },
    Invariant {
        name: "job_ends_once",
        promise: "no job has ended twice",
        remedy: BY_HAND,
        breaches: "select format('job %s is in the history %s times', id, count(*))
                   from krilin.job_history group by id having count(*) > 1",
    },
    Invariant {
        name: "ended_within_attempts",
        promise: "no ended job has spent more attempts than it might, and none ended before it was made",
        remedy: BY_HAND,
        breaches: "select format('job %s: attempt %s of %s, made at %s, ended at %s', id, attempt, max_attempts,
                       created_at, finished_at)
                   from krilin.job_history where attempt > max_attempts or finished_at < created_at",
    },
];

fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}

/// Begins one snapshot for all statements to come, which may only read, each for at most `timeout`.
pub async fn begin(db: &mut PgConnection, timeout: Duration) -> Result<(), Error> {
    let begin = format!(
        "begin isolation level repeatable read read only; set local statement_timeout = {}",
        timeout.as_millis()
    );
    super::within(sqlx::raw_sql(sqlx::AssertSqlSafe(begin)).execute(db)).await?;
    Ok(())
}

/// Where `invariant` does not hold in the snapshot that is open on `db`. A statement that fails, or takes longer than it
/// may, leaves the snapshot as it was.
pub async fn breach(db: &mut PgConnection, invariant: &Invariant, bounds: &Bounds) -> Result<Breach, Error> {
    let statement = format!(
        "with bound as (
             select $1::interval as lease_overdue, $2::interval as promotion_overdue, $3::interval as keys_kept,
                 $4::interval as history_kept, $5::integer as days_ahead, $7::interval as grace_longest
         ),
         breach (what) as ({})
         select what, count(*) over () from breach limit $6",
        invariant.breaches
    );
    let statement = sqlx::query_as::<_, (String, i64)>(sqlx::AssertSqlSafe(statement))
        .persistent(false)
        .bind(interval(bounds.lease_overdue))
        .bind(interval(bounds.promotion_overdue))
        .bind(interval(bounds.keys_kept))
        .bind(interval(bounds.history_kept))
        .bind(bounds.days_ahead)
        .bind(EXAMPLES)
        .bind(interval(bounds.grace_longest));
    super::within(sqlx::raw_sql("savepoint invariant").execute(&mut *db)).await?;
    let answer = tokio::time::timeout(bounds.timeout + ANSWER_SLACK, statement.fetch_all(&mut *db)).await;
    match answer {
        Ok(Ok(rows)) => {
            let count = rows.first().map_or(0, |(_, count)| *count);
            Ok(Breach { count, examples: rows.into_iter().map(|(what, _)| what).collect() })
        }
        Ok(Err(error)) => {
            super::within(sqlx::raw_sql("rollback to savepoint invariant").execute(db)).await?;
            Err(error.into())
        }
        Err(_) => Err(Error::Unavailable(format!("no answer within {} s", bounds.timeout.as_secs()))),
    }
}

/// Ends the snapshot.
pub async fn end(db: &mut PgConnection) -> Result<(), Error> {
    super::within(sqlx::raw_sql("rollback").execute(db)).await?;
    Ok(())
}
