//! What every system is asked to do, and how it is timed: the same loops for all of them.
//!
//! An adapter is a program: `bench-NAME COMMAND URL [NUMBER…]` does one thing in a fresh process against the database at
//! URL and prints one line of JSON. The commands:
//!
//! | command | does | says |
//! |---|---|---|
//! | `setup` | installs the system's schema | `{}` |
//! | `empty` | removes all jobs, waiting and ended | `{}` |
//! | `enqueue JOBS PRODUCERS` | stores jobs one by one, each durable before the producer's next | `per_s` |
//! | `bulk JOBS` | stores jobs by the system's own call for many | `per_s` |
//! | `drain JOBS` | runs what is stored, until the last is recorded as done | `per_s` |
//! | `pickup JOBS GAP_MS` | an idle worker and one job after the other, from enqueuing to the handler | `p50_ms`, `p99_ms` |
//! | `paced RATE SECONDS` | the same under a steady load | `p50_ms`, `p99_ms` |
//! | `idle SECONDS` | a worker without work, whose memory is looked at from outside | `{}` |

use std::{
    collections::VecDeque,
    future::Future,
    sync::{
        LazyLock, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::{sync::Notify, time::sleep};

/// Jobs that find connections closed and plans unmade, and are not counted.
const WARM_UP: usize = 20;
/// How long a worker has to be up before it is given work to be timed.
const SETTLE: Duration = Duration::from_millis(1_500);
/// How often the rows that are left are counted when all handlers have run.
const LOOK: Duration = Duration::from_millis(2);
/// How long anything may take before the run is given up.
const PATIENCE: Duration = Duration::from_secs(300);

/// What the handlers of this process have seen. A job's handler calls [`Seen::one`] and returns.
pub static SEEN: LazyLock<Seen> = LazyLock::new(Seen::default);

/// A count, and the instants of the latest ones.
#[derive(Default)]
pub struct Seen {
    count: AtomicUsize,
    /// How many somebody waits for. Only that one wakes: to be woken for each takes time from the jobs.
    wanted: AtomicUsize,
    began: Notify,
    latest: Mutex<VecDeque<Instant>>,
    timed: std::sync::atomic::AtomicBool,
}

impl Seen {
    /// A handler began.
    pub fn one(&self) {
        if self.timed.load(Ordering::Relaxed) {
            self.latest.lock().unwrap_or_else(PoisonError::into_inner).push_back(Instant::now());
        }
        if self.count.fetch_add(1, Ordering::SeqCst) + 1 == self.wanted.load(Ordering::SeqCst) {
            self.began.notify_one();
        }
    }

    /// Waits until that many handlers have begun; one waits at a time.
    pub async fn until(&self, count: usize) {
        self.wanted.store(count, Ordering::SeqCst);
        while self.count.load(Ordering::SeqCst) < count {
            let _ = tokio::time::timeout(Duration::from_millis(50), self.began.notified()).await;
        }
    }
}

/// The arguments of every job: `{"habit": "read", "day": "2026-01-01"}`.
pub fn payload() -> Value {
    json!({ "habit": "read", "day": "2026-01-01" })
}

/// A system under test, connected.
pub trait System: Sized + Sync {
    /// What keeps a worker alive; dropped when the process ends.
    type Worker;

    /// Connects to the database: one connection is open then.
    fn connect(url: &str) -> impl Future<Output = Self>;
    /// Installs the schema.
    fn setup(&self) -> impl Future<Output = ()>;
    /// Removes all jobs.
    fn empty(&self) -> impl Future<Output = ()>;
    /// Stores one job, durably.
    fn enqueue(&self) -> impl Future<Output = ()>;
    /// Stores that many, durably, in the way its documentation gives for many.
    fn bulk(&self, jobs: usize) -> impl Future<Output = ()>;
    /// Starts a worker. `many` is true where a backlog waits: with the settings its documentation gives for throughput.
    fn work(&self, many: bool) -> impl Future<Output = Self::Worker>;
    /// Jobs that are not yet recorded as done.
    fn left(&self) -> impl Future<Output = i64>;
    /// What only this system is asked for; nothing by default.
    fn own(&self, command: &str, numbers: &[usize]) -> impl Future<Output = Option<Value>> {
        let _ = (command, numbers);
        async { None }
    }
}

/// Runs the command that the program was given. Ends with 2 when it does not know it.
pub fn main<S: System>() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let said = runtime.expect("a runtime").block_on(async {
        tokio::time::timeout(PATIENCE, run::<S>()).await.expect("the command ends within its time")
    });
    println!("{said}");
    // A worker is not stopped: nothing is measured any more.
    std::process::exit(0);
}

async fn run<S: System>() -> Value {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [command, url, numbers @ ..] = arguments.as_slice() else { unknown("COMMAND URL [NUMBER…]") };
    let numbers: Vec<usize> = numbers.iter().map(|n| n.parse().expect("a number")).collect();
    let system = S::connect(url).await;
    match (command.as_str(), numbers.as_slice()) {
        ("setup", _) => system.setup().await,
        ("empty", _) => system.empty().await,
        ("enqueue", [jobs, producers]) => return enqueue(&system, *jobs, *producers).await,
        ("bulk", [jobs]) => {
            let begun = Instant::now();
            system.bulk(*jobs).await;
            return rate(*jobs, begun);
        }
        ("drain", [jobs]) => return drain(&system, *jobs).await,
        ("pickup", [jobs, gap]) => return pickup(&system, *jobs, Duration::from_millis(*gap as u64), true).await,
        ("paced", [rate, seconds]) => {
            return pickup(&system, rate * seconds, Duration::from_secs(1) / (*rate as u32), false).await;
        }
        ("idle", [seconds]) => {
            let _worker = system.work(false).await;
            sleep(Duration::from_secs(*seconds as u64)).await;
        }
        _ => return system.own(command, &numbers).await.unwrap_or_else(|| unknown(command)),
    }
    json!({})
}

fn unknown(command: &str) -> ! {
    eprintln!("not a command, or not with these numbers: {command}");
    std::process::exit(2);
}

/// Jobs per second since `begun`, as every command says it.
pub fn rate(jobs: usize, begun: Instant) -> Value {
    json!({ "per_s": jobs as f64 / begun.elapsed().as_secs_f64() })
}

async fn enqueue<S: System>(system: &S, jobs: usize, producers: usize) -> Value {
    system.enqueue().await;
    let share = jobs / producers;
    let begun = Instant::now();
    join_all((0..producers).map(|_| async {
        for _ in 0..share {
            system.enqueue().await;
        }
    }))
    .await;
    rate(share * producers, begun)
}

async fn drain<S: System>(system: &S, jobs: usize) -> Value {
    let begun = Instant::now();
    let _worker = system.work(true).await;
    SEEN.until(jobs).await;
    loop {
        // The look that finds nothing left tells of the moment in which it began: what it takes is no work of the system's.
        let said = rate(jobs, begun);
        if system.left().await == 0 {
            return said;
        }
        sleep(LOOK).await;
    }
}

/// Times from before the enqueuing to the handler. One at a time when `alone`; else at a pace, however long each takes.
async fn pickup<S: System>(system: &S, jobs: usize, gap: Duration, alone: bool) -> Value {
    let _worker = system.work(false).await;
    sleep(SETTLE).await;
    for number in 0..WARM_UP {
        system.enqueue().await;
        SEEN.until(number + 1).await;
        sleep(gap).await;
    }
    SEEN.timed.store(true, Ordering::Relaxed);
    let mut waits = if alone { one_by_one(system, jobs, gap).await } else { at_a_pace(system, jobs, gap).await };
    waits.sort_by(f64::total_cmp);
    let at = |part: f64| waits[((waits.len() - 1) as f64 * part).round() as usize];
    // Who goes with jobs in hand leaves them to whoever finds their leases run out.
    while system.left().await > 0 {
        sleep(LOOK).await;
    }
    json!({ "p50_ms": at(0.5), "p99_ms": at(0.99) })
}

async fn one_by_one<S: System>(system: &S, jobs: usize, gap: Duration) -> Vec<f64> {
    let mut waits = Vec::with_capacity(jobs);
    for number in 0..jobs {
        let asked = Instant::now();
        system.enqueue().await;
        SEEN.until(WARM_UP + number + 1).await;
        let began = SEEN.latest.lock().expect("no handler panics").pop_front().expect("a handler ran");
        waits.push(millis(began - asked));
        sleep(gap).await;
    }
    waits
}

/// Equal jobs are taken in order but for a shuffle of neighbours, so the n-th enqueuing is paired with the n-th handler.
async fn at_a_pace<S: System>(system: &S, jobs: usize, gap: Duration) -> Vec<f64> {
    let begun = Instant::now();
    let asked = join_all((0..jobs).map(|number| async move {
        tokio::time::sleep_until((begun + gap * number as u32).into()).await;
        let asked = Instant::now();
        system.enqueue().await;
        asked
    }))
    .await;
    SEEN.until(WARM_UP + jobs).await;
    let began = SEEN.latest.lock().expect("no handler panics");
    asked.iter().zip(began.iter()).map(|(asked, began)| millis(began.saturating_duration_since(*asked))).collect()
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
