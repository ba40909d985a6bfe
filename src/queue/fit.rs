//! Whether a job can be taken as it is. Refuses nothing by itself: it names the first rule that does not hold.

use std::time::Duration;

use super::enqueue::{KEY_MAX_BYTES, PERIOD_MIN, WAIT_LONGEST};
use crate::model::{
    flow::UNITS_MAX,
    job::{NewJob, OnConflict, Unique},
    policy::{MAX_ATTEMPTS_LIMIT, PRIORITY_MAX, Policy},
};

/// What is wrong with a job of a kind with this policy, beside the size of its arguments; nothing when it fits.
pub(super) fn wrong(job: &NewJob, policy: &Policy) -> Option<String> {
    let (max_attempts, priority) =
        (job.max_attempts.unwrap_or(policy.max_attempts), job.priority.unwrap_or(policy.priority));
    let unique = job.unique.as_ref();
    let keys = [
        unique.map(|unique| &unique.key),
        job.concurrency_key.as_ref(),
        job.idempotency.as_ref().map(|given| &given.key),
    ];
    if !keys.into_iter().flatten().all(|key| (1..=KEY_MAX_BYTES).contains(&key.len())) {
        return Some(format!("a key has 1 to {KEY_MAX_BYTES} bytes"));
    }
    if !(1..=MAX_ATTEMPTS_LIMIT).contains(&max_attempts) {
        return Some(format!("max_attempts is from 1 to {MAX_ATTEMPTS_LIMIT}, not {max_attempts}"));
    }
    if priority.unsigned_abs() > PRIORITY_MAX.unsigned_abs() {
        return Some(format!("a priority is from -{PRIORITY_MAX} to {PRIORITY_MAX}, not {priority}"));
    }
    if !job.cost.is_none_or(|cost| (1..=UNITS_MAX).contains(&cost)) {
        return Some(format!("a cost is from 1 to {UNITS_MAX}"));
    }
    if job.run_at.is_some() && job.delay.is_some() {
        return Some("run_at and delay exclude each other".to_owned());
    }
    if job.delay.is_some_and(|delay| delay > WAIT_LONGEST) {
        return Some("a delay is ten years at most".to_owned());
    }
    unique.and_then(|unique| wrong_key(unique, job.delay)).map(ToOwned::to_owned)
}

fn wrong_key(unique: &Unique, delay: Option<Duration>) -> Option<&'static str> {
    if unique.period.is_some_and(|period| !(PERIOD_MIN..=WAIT_LONGEST).contains(&period)) {
        return Some("the period of a unique key is from one second to ten years");
    }
    match (unique.on_conflict, delay) {
        (OnConflict::Debounce { .. }, None) => Some("debounce needs a delay"),
        (OnConflict::Debounce { max_wait }, Some(delay)) if max_wait < delay => {
            Some("max_wait is shorter than the delay")
        }
        (OnConflict::Debounce { max_wait }, _) if max_wait > WAIT_LONGEST => Some("max_wait is ten years at most"),
        _ => None,
    }
}
