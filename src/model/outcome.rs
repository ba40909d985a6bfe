//! How an attempt at a job ends, and the one function that decides what follows. Refuses to let anything be tried or put
//! off for ever.

use std::time::Duration;

use serde_json::value::RawValue;

use super::{
    duration::HumanDuration,
    error::{Code, CtxError},
    policy::{Policy, Rule, WAIT_LONGEST},
};

/// How an attempt ended when nothing went wrong.
#[derive(Debug)]
pub enum Outcome {
    /// The work is done; its result as JSON. A kind whose completion is `transaction` has already committed it.
    Done(Option<Box<RawValue>>),
    /// Not now: run again after this long. Costs no attempt.
    Snooze(Duration),
    /// Never: nobody wants it any more, for this reason.
    Cancel(String),
}

/// How an attempt ended when something went wrong. `?` makes a `Retry`, about which the code and the kind's policy decide;
/// [`Failure::fatal`] is a visible decision.
#[derive(Debug)]
pub enum Failure {
    /// What the policy says of the code: mostly another try, after the given time (which costs no attempt) or the backoff.
    Retry {
        /// What went wrong.
        source: CtxError,
        /// How long the other side asked us to wait.
        after: Option<Duration>,
    },
    /// Do not try again.
    Fatal {
        /// What went wrong.
        source: CtxError,
    },
}

impl Failure {
    /// A failure that another attempt would only repeat.
    pub fn fatal(source: CtxError) -> Self {
        Self::Fatal { source }
    }

    /// What went wrong.
    pub fn source(&self) -> &CtxError {
        match self {
            Self::Retry { source, .. } | Self::Fatal { source } => source,
        }
    }
}

impl From<CtxError> for Failure {
    fn from(source: CtxError) -> Self {
        let after = source.retry_after_ms.map(Duration::from_millis);
        Self::Retry { source, after }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(cause: anyhow::Error) -> Self {
        tracing::warn!(error = format!("{cause:#}"), "a handler failed without a code");
        Self::Retry { source: CtxError::new(Code::Internal, "something went wrong on our side"), after: None }
    }
}

/// How often a job has been tried, as the claim of its present attempt found it.
#[derive(Debug, Clone, Copy)]
pub struct Tries {
    /// The present attempt; the first is 1.
    pub attempt: u32,
    /// The attempts it may have.
    pub max_attempts: u32,
    /// How the attempt before failed.
    pub last_code: Option<Code>,
    /// Waits so far that cost no attempt.
    pub snoozes: u32,
}

impl Tries {
    /// Whether the present attempt is the last.
    pub fn spent(self) -> bool {
        self.attempt >= self.max_attempts
    }
}

/// What becomes of a job whose attempt has ended.
#[derive(Debug)]
pub enum Next {
    /// To the history as done.
    Done(Option<Box<RawValue>>),
    /// To the history as dead.
    Dead(CtxError),
    /// To the history as cancelled, for this reason.
    Cancelled(String),
    /// Pending again, for this long at least.
    Later {
        /// The time until the next attempt.
        wait: Duration,
        /// Whether the attempt counts.
        spent: bool,
        /// What went wrong; none for a snooze.
        error: Option<CtxError>,
    },
}

/// Decides what follows an attempt of a job whose kind has `policy`. `chance` is uniform in 0..1.
///
/// A snooze, and a wait that the other side asked for, cost no attempt; after `policy.max_snoozes` of them each costs one, so
/// that no job is put off for ever.
pub fn next(ended: Result<Outcome, Failure>, tries: Tries, policy: &Policy, chance: f64) -> Next {
    let (source, after) = match ended {
        Ok(Outcome::Done(result)) => return Next::Done(result),
        Ok(Outcome::Snooze(wait)) => return put_off(wait, tries, policy, None),
        Ok(Outcome::Cancel(reason)) => return Next::Cancelled(reason),
        Err(Failure::Fatal { source }) => return Next::Dead(source),
        Err(Failure::Retry { source, after }) => (source, after),
    };
    let again = match (policy.rule(source.code), after) {
        (Rule::Discard, _) => return Next::Dead(source),
        (Rule::Cancel, _) => return Next::Cancelled(source.to_string()),
        (Rule::Once, _) if tries.last_code == Some(source.code) => return Next::Dead(source),
        (_, Some(wait)) | (Rule::Snooze(HumanDuration(wait)), None) => {
            return put_off(wait, tries, policy, Some(source));
        }
        (Rule::RetryAfter(HumanDuration(wait)), None) => wait,
        (Rule::Retry | Rule::Once, None) => policy.backoff.wait(tries.attempt, chance),
    };
    if tries.spent() { Next::Dead(source) } else { Next::Later { wait: again, spent: true, error: Some(source) } }
}

/// A wait that costs no attempt while there are such waits left.
fn put_off(wait: Duration, tries: Tries, policy: &Policy, error: Option<CtxError>) -> Next {
    let (wait, free) = (wait.min(WAIT_LONGEST), tries.snoozes < policy.max_snoozes);
    if free || !tries.spent() {
        return Next::Later { wait, spent: !free, error };
    }
    Next::Dead(error.unwrap_or_else(|| {
        let words = format!("the job was put off {} times, and no attempt is left", tries.snoozes);
        CtxError::new(Code::QuotaExceeded, words)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "description = \"\"\nqueue = \"q\"\npriority = 0\nasked_by = \"user\"\ncompletion = \"batch\"\n\
        timeout = \"1s\"\nmax_attempts = 3\nmax_snoozes = 2\n\
        backoff = { first = \"1s\", factor = 2.0, longest = \"1s\", jitter = 0.0 }\n\
        [errors]\nNotFound = \"retry\"\nRefused = \"cancel\"\nTimeout = \"discard\"\n\
        CpuLimit = { snooze = \"5s\" }\nStalled = { retry_after = \"7s\" }\n";

    fn after(code: Code, asked: Option<u64>, tries: Tries) -> Next {
        let policy = Policy::parse("k", POLICY, &[]).unwrap();
        let failure = Failure::Retry { source: CtxError::new(code, "no"), after: asked.map(Duration::from_secs) };
        next(Err(failure), tries, &policy, 0.5)
    }

    fn tried(attempt: u32, last_code: Option<Code>, snoozes: u32) -> Tries {
        Tries { attempt, max_attempts: 3, last_code, snoozes }
    }

    #[test]
    fn the_code_says_whether_to_try_again() {
        let after = |code, attempt, last_code| after(code, None, tried(attempt, last_code, 0));
        assert!(matches!(after(Code::Unavailable, 1, None), Next::Later { spent: true, .. }));
        assert!(matches!(after(Code::Unavailable, 2, Some(Code::Unavailable)), Next::Later { .. }));
        assert!(matches!(after(Code::Unavailable, 3, None), Next::Dead(_)));
        assert!(matches!(after(Code::QuotaExceeded, 1, None), Next::Dead(_)));
        assert!(matches!(after(Code::Conflict, 1, None), Next::Later { .. }));
        assert!(matches!(after(Code::Conflict, 2, Some(Code::Conflict)), Next::Dead(_)));
        assert!(matches!(after(Code::Conflict, 2, Some(Code::Unavailable)), Next::Later { .. }));
    }

    #[test]
    fn the_policy_says_otherwise() {
        let (first, last) = (tried(1, None, 0), tried(3, None, 0));
        assert!(matches!(after(Code::NotFound, None, first), Next::Later { spent: true, .. }));
        assert!(matches!(after(Code::NotFound, None, last), Next::Dead(_)));
        assert!(matches!(after(Code::Refused, None, first), Next::Cancelled(_)));
        assert!(matches!(after(Code::Timeout, Some(1), first), Next::Dead(_)));
        let wait = |next| match next {
            Next::Later { wait, spent, .. } => (wait.as_secs(), spent),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait(after(Code::CpuLimit, None, last)), (5, false));
        assert_eq!(wait(after(Code::Stalled, None, first)), (7, true));
        assert!(matches!(after(Code::Stalled, None, last), Next::Dead(_)));
    }

    #[test]
    fn waits_that_cost_nothing_are_bounded() {
        let asked = |wait, tries| after(Code::RateLimited, Some(wait), tries);
        assert!(matches!(asked(9, tried(3, None, 1)), Next::Later { spent: false, .. }));
        assert!(matches!(asked(9, tried(1, None, 2)), Next::Later { spent: true, .. }));
        assert!(matches!(asked(9, tried(3, None, 2)), Next::Dead(_)));
        let Next::Later { wait, .. } = asked(u64::MAX / 2, tried(1, None, 0)) else { panic!("it is put off") };
        assert_eq!(wait, WAIT_LONGEST);
        let policy = Policy::parse("k", POLICY, &[]).unwrap();
        let snooze = |tries| next(Ok(Outcome::Snooze(Duration::ZERO)), tries, &policy, 0.5);
        assert!(matches!(snooze(tried(3, None, 0)), Next::Later { spent: false, error: None, .. }));
        assert!(matches!(snooze(tried(3, None, 2)), Next::Dead(_)));
    }
}
