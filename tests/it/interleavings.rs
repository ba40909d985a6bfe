//! The queue against a small model in memory: random interleavings of everything that can happen to a job, on a real
//! database, and after every single step the two must tell the same story.
//!
//! What the model leaves out (users, keys, limits) has tests of its own. The clock stands still between steps that move it, so
//! that what is due is never a matter of how fast this machine is.

mod story;

use proptest::{collection::vec, prelude::*, sample::Index, test_runner::TestRunner};

use self::story::{Story, WORKERS};
use crate::kinds::Kit;

/// Random stories, and the steps of each.
const STORIES: u32 = 60;
const STEPS: usize = 150;

/// One thing that happens. An [`Index`] picks one of the jobs there are.
#[derive(Debug, Clone)]
pub enum Step {
    Enqueue {
        priority: i16,
        delay_s: i64,
        attempts: u32,
    },
    Claim {
        worker: usize,
        limit: i64,
    },
    Renew {
        worker: usize,
    },
    /// Ends a job in the batch of the next claim, or in a transaction of its own.
    Complete {
        job: Index,
        own: bool,
        stale: bool,
    },
    /// The handler failed: dead without attempts left, else back after a wait.
    Fail {
        job: Index,
        wait_s: u64,
        stale: bool,
    },
    /// A drain: back as if never claimed.
    GiveBack {
        job: Index,
    },
    Cancel {
        job: Index,
    },
    Retry {
        job: Index,
    },
    Reap,
    /// Ends what was cancelled while it ran and runs no more.
    Sweep,
    Promote {
        limit: i64,
    },
    Pause,
    Resume,
    Pass {
        seconds: i64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let job = any::<Index>;
    let step = prop_oneof![
        8 => (0..3_i16, prop_oneof![Just(0), Just(5), Just(60)], 1..4_u32)
            .prop_map(|(priority, delay_s, attempts)| Step::Enqueue { priority, delay_s, attempts }),
        5 => (0..WORKERS, 1..4_i64).prop_map(|(worker, limit)| Step::Claim { worker, limit }),
        2 => (0..WORKERS).prop_map(|worker| Step::Renew { worker }),
        4 => (job(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(job, own, stale)| Step::Complete { job, own, stale }),
        3 => (job(), prop_oneof![Just(0), Just(7)], prop::bool::weighted(0.2))
            .prop_map(|(job, wait_s, stale)| Step::Fail { job, wait_s, stale }),
        1 => job().prop_map(|job| Step::GiveBack { job }),
        1 => job().prop_map(|job| Step::Cancel { job }),
        1 => job().prop_map(|job| Step::Retry { job }),
        2 => Just(Step::Reap),
        1 => Just(Step::Sweep),
        3 => (1..4_i64).prop_map(|limit| Step::Promote { limit }),
        1 => Just(Step::Pause),
        2 => Just(Step::Resume),
        3 => prop_oneof![Just(4), Just(11), Just(61)].prop_map(|seconds| Step::Pass { seconds }),
    ];
    vec(step, 1..STEPS)
}

#[test]
fn whatever_happens_in_whatever_order_the_queue_does_what_its_model_does() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let kit = runtime.block_on(Kit::new());
    let mut runner =
        TestRunner::new(ProptestConfig { cases: STORIES, max_shrink_iters: 200, ..ProptestConfig::default() });
    let held = runner.run(&steps(), |steps| {
        runtime.block_on(async {
            let mut story = Story::new(&kit).await;
            for step in &steps {
                story.step(step).await;
                story.compare(step).await;
            }
        });
        Ok(())
    });
    held.unwrap();
}
