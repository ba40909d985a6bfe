//! One look at schedules that are due: from what the database says to what is to be written. Pure but for ids.
//! A schedule that cannot be worked out is parked with its reason; the others never notice.

use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, SubsecRound, Utc};
use serde_json::{Map, Value};

use super::Row;
use crate::{
    model::{
        clock::Clock,
        id::{AppId, JobId, ScheduleId, UserId},
        job::Deadline,
        policy::Policies,
        schedule::{ACTION_KIND, Before, Fire, Outcome, Overlap, Parts, Standing, State, Timing, Verdict, judge},
    },
    store::{
        enqueue::{NewRow, RowTies},
        fires::{Advance, Due, NewOccurrence},
    },
};

/// The most ledger rows of one transaction; schedules beyond are looked at in the next.
const LEDGER_MAX: usize = 20_000;
/// The reason of a fire by hand.
const BY_HAND: &str = "triggered by hand";
/// What the concurrency key begins with that jobs of one schedule share, where they are to wait for each other and their
/// kind has no key of its own, under which they do that anyway. The claim (`krilin.pick`) knows it: such jobs run one at a
/// time, whatever is set for the keys of the queue.
const SERIAL: &str = "schedule:";

/// What one transaction writes.
#[derive(Debug, Default)]
pub(super) struct Look {
    pub(super) occurrences: Vec<NewOccurrence>,
    pub(super) jobs: Vec<NewRow>,
    pub(super) advances: Vec<Advance>,
}

/// What jobs are made from.
#[derive(Clone, Copy)]
pub(super) struct Means<'a> {
    pub(super) policies: &'a Policies,
    pub(super) clock: &'a dyn Clock,
}

impl Look {
    /// Judges each of `due`. Fewer may be looked at when many fires are owed.
    pub(super) fn at(due: &[Due], means: Means<'_>) -> Self {
        let mut look = Self::default();
        for one in due {
            if look.occurrences.len() >= LEDGER_MAX {
                break;
            }
            match timing(one) {
                Ok(timing) => look.judge(one, &timing, means),
                Err(reason) => look.advances.push(parked(one, reason)),
            }
        }
        look
    }

    fn judge(&mut self, due: &Due, timing: &Timing, means: Means<'_>) {
        let verdict = judge(timing, &standing(due, means.policies), due.now);
        let mut last_job = None;
        for occurrence in &verdict.occurrences {
            let fired = occurrence.outcome == Outcome::Fired;
            let fire = Fire {
                id: due.name.clone(),
                nominal_at: occurrence.nominal_at.trunc_subsecs(3),
                fired_at: due.now.trunc_subsecs(3),
                missed: occurrence.missed,
            };
            let job = fired.then(|| job(Source::of(due), &fire, means)).flatten();
            let job_id = job.as_ref().map(|job| job.id);
            last_job = job_id.or(last_job);
            self.occurrences.push(NewOccurrence {
                schedule_id: due.id,
                nominal_at: occurrence.nominal_at,
                due_at: occurrence.due_at,
                outcome: if fired && job_id.is_none() { Outcome::Skipped } else { occurrence.outcome }.as_str(),
                reason: occurrence.reason.clone(),
                missed: whole(occurrence.missed),
                job_id,
            });
            self.jobs.extend(job);
        }
        self.advances.push(advance(due, verdict, last_job));
    }

    /// Drops the jobs of fires that had a row in the ledger already.
    pub(super) fn keep_jobs(&mut self, recorded: &[JobId]) {
        if recorded.len() < self.jobs.len() {
            let recorded: HashSet<&JobId> = recorded.iter().collect();
            self.jobs.retain(|job| recorded.contains(&job.id));
        }
    }

    /// How many jobs each queue gets.
    pub(super) fn queues(&self) -> BTreeMap<String, usize> {
        let mut queues = BTreeMap::new();
        for job in &self.jobs {
            if let Some(count) = queues.get_mut(&job.queue) {
                *count += 1;
            } else {
                queues.insert(job.queue.clone(), 1);
            }
        }
        queues
    }
}

fn timing(due: &Due) -> Result<Timing, String> {
    let parts = Parts {
        cron: due.cron.as_deref(),
        every_ms: due.every_ms,
        once_at: due.once_at,
        anchor_at: due.anchor_at,
        timezone: &due.timezone,
        user_zone: due.user_zone.as_deref().or_else(|| due.user_id.is_none().then_some("UTC")),
        bounds: (due.starts_at, due.ends_at),
        jitter_ms: due.jitter_ms,
    };
    parts.timing(due.id).map_err(|fault| fault.message)
}

fn standing(due: &Due, policies: &Policies) -> Standing {
    let count = |n: i32| u32::try_from(n).unwrap_or(0);
    let before = match due.ended.as_deref() {
        _ if due.live => Before::Live,
        Some("done") => Before::Done,
        Some("dead") => Before::Dead,
        _ => Before::Nothing,
    };
    let hindrance = match due.installation.as_deref() {
        _ if policies.get(&due.kind).is_none() => Some(format!("there is no kind of job named `{}` here", due.kind)),
        Some(state) if state != "active" => Some(format!("the app is {state} for this user")),
        None if due.kind == ACTION_KIND => Some("the app is not installed".to_owned()),
        _ => None,
    };
    Standing {
        next_at: due.next_at,
        last_nominal_at: due.last_nominal_at,
        skip_until: due.skip_until,
        missed: count(due.missed),
        run_count: count(due.run_count),
        max_runs: due.max_runs.map(count),
        catch_up: due.catch_up.parse().unwrap_or_default(),
        overlap: due.overlap.parse().unwrap_or_default(),
        before,
        failures: count(due.failure_count),
        pause_after: due.pause_after.map(count),
        hindrance,
    }
}

fn advance(due: &Due, verdict: Verdict, job_id: Option<JobId>) -> Advance {
    Advance {
        id: due.id,
        state: verdict.state.as_str(),
        reason: verdict.reason,
        next_at: verdict.next_at,
        due_at: verdict.due_at,
        missed: whole(verdict.missed),
        run_count: whole(verdict.run_count),
        failure_count: whole(verdict.failures),
        last_nominal_at: verdict.occurrences.last().map(|one| one.nominal_at),
        job_id,
    }
}

fn parked(due: &Due, reason: String) -> Advance {
    Advance {
        id: due.id,
        state: State::Parked.as_str(),
        reason: Some(reason),
        next_at: Some(due.next_at),
        due_at: None,
        missed: due.missed,
        run_count: due.run_count,
        failure_count: due.failure_count,
        last_nominal_at: None,
        job_id: None,
    }
}

/// What a job is made of.
struct Source<'a> {
    user_id: Option<UserId>,
    app_id: Option<&'a str>,
    kind: &'a str,
    args: Value,
    /// Whose jobs wait for each other.
    serial: Option<ScheduleId>,
}

impl<'a> Source<'a> {
    fn of(due: &'a Due) -> Self {
        // Postgres writes JSON.
        let args = serde_json::from_str(&due.args).unwrap_or(Value::Null);
        let serial = is_serial(&due.overlap).then_some(due.id);
        Self { user_id: due.user_id, app_id: due.app_id.as_deref(), kind: &due.kind, args, serial }
    }
}

/// Whether jobs of a schedule with this overlap wait for each other.
fn is_serial(overlap: &str) -> bool {
    overlap.parse() == Ok(Overlap::Queue)
}

/// The job of a fire. An action is told of the fire beside its input; other kinds get their arguments as they are.
fn job(source: Source<'_>, fire: &Fire, Means { policies, clock }: Means<'_>) -> Option<NewRow> {
    let policy = policies.get(source.kind)?;
    let args = match source.args {
        Value::Object(mut args) if source.kind == ACTION_KIND => {
            args.insert("schedule".to_owned(), serde_json::to_value(fire).unwrap_or(Value::Object(Map::new())));
            Value::Object(args)
        }
        other => other,
    };
    let app_id = source.app_id.and_then(|app| app.parse::<AppId>().ok());
    let key = policy.key(source.kind, source.user_id, app_id.as_ref());
    let concurrency_key = key.or_else(|| source.serial.map(|id| format!("{SERIAL}{id}")));
    Some(NewRow {
        id: JobId::new(clock),
        user_id: source.user_id,
        app_id,
        queue: policy.queue.clone(),
        kind: source.kind.to_owned(),
        args: args.to_string(),
        priority: policy.priority,
        max_attempts: i32::try_from(policy.max_attempts).unwrap_or(i32::MAX),
        run_at: None,
        delay: None,
        cause: Some(format!("schedule {}", fire.id)),
        trace_parent: None,
        awaited: false,
        concurrency_key,
        cost: policy.own_cost(),
        unique: None,
        idempotency: None,
        ties: RowTies { deadline: policy.deadline.map(|length| Deadline::Within(length.0)), ..RowTies::default() },
    })
}

/// A fire that nobody waited for.
pub(super) struct ByHand {
    pub(super) occurrence: NewOccurrence,
    pub(super) job: NewRow,
}

/// A fire of `row` at `now`; or why there can be none.
pub(super) fn by_hand(row: &Row, now: DateTime<Utc>, policies: &Policies, clock: &dyn Clock) -> Result<ByHand, String> {
    let (args, serial) = (row.args.clone(), is_serial(&row.overlap).then_some(row.id));
    let source = Source { user_id: row.user_id, app_id: row.app_id.as_deref(), kind: &row.kind, args, serial };
    let told = now.trunc_subsecs(3);
    let fire = Fire { id: row.name.clone(), nominal_at: told, fired_at: told, missed: 0 };
    let job = job(source, &fire, Means { policies, clock })
        .ok_or_else(|| format!("there is no kind of job named `{}` here", row.kind))?;
    let occurrence = NewOccurrence {
        schedule_id: row.id,
        nominal_at: now,
        due_at: now,
        outcome: Outcome::Fired.as_str(),
        reason: Some(BY_HAND.to_owned()),
        missed: 0,
        job_id: Some(job.id),
    };
    Ok(ByHand { occurrence, job })
}

fn whole(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
