//! Parts of `queue`: minutes of jobs that come and go beside a million scheduled ones, as fast as they can; and the same
//! while a reader holds its snapshot, so that no dead row can be removed.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use krilin::model::secret::Secret;
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::sleep;

use crate::{
    queue::{BESIDE, Ours, noop},
    report::{Goal, Report},
};

/// How long it goes on, and how long under a snapshot, in minutes.
const FREE_MINUTES: f64 = 5.0;
const PINNED_MINUTES: f64 = 10.0;
/// The first and the last of so many parts of the time are compared.
const PARTS: u32 = 5;
/// At most so many jobs wait, and so many are enqueued at once.
const WAITING_MAX: usize = 20_000;
const AT_ONCE: usize = 5_000;
/// Before the first minute begins.
const WARM_UP: Duration = Duration::from_secs(5);

/// Runs both, or only the free one. `minutes` is another length for the free run; the pinned one takes twice as long.
pub async fn churn(
    report: &mut Report,
    ours: &Ours,
    (owner, url): (&PgPool, &Secret),
    (minutes, pinned): (Option<f64>, bool),
) {
    let free_minutes = minutes.unwrap_or(FREE_MINUTES);
    let pinned_minutes = minutes.map_or(PINNED_MINUTES, |minutes| 2.0 * minutes);
    let part = seconds(free_minutes) / PARTS;
    let free = run(ours, owner, (part, PARTS)).await;
    let (first, last) = (free[0], free[free.len() - 1]);
    report.figure("churn_minutes", free_minutes, "", Goal::Told);
    report.figure("churn_first_per_s", first.round(), "/s", Goal::Told);
    report.figure("churn_last_per_s", last.round(), "/s", Goal::Told);
    report.figure("churn_last_vs_first", last / first, "x", Goal::AtLeast(0.9));
    if !pinned {
        return;
    }
    let mut reader = PgConnection::connect(url.expose()).await.expect("the cluster is there");
    let hold = "set idle_in_transaction_session_timeout = 0; begin isolation level repeatable read";
    sqlx::raw_sql(hold).execute(&mut reader).await.expect("anybody may");
    let _: i64 =
        sqlx::query_scalar("select count(*) from krilin.users").fetch_one(&mut reader).await.expect("it counts");
    // As many parts of the same length as fit, of which the last ones, as long as the free run, are compared with it.
    let parts = u32::try_from((seconds(pinned_minutes).as_millis() / part.as_millis().max(1)).max(1)).unwrap_or(PARTS);
    let pinned = run(ours, owner, (part, parts)).await;
    sqlx::raw_sql("commit").execute(&mut reader).await.expect("nobody has ended the reader");
    let worst = &pinned[pinned.len().saturating_sub(free.len())..];
    report.figure("pinned_minutes", pinned_minutes, "", Goal::Told);
    report.figure("free_per_s", mean(&free).round(), "/s", Goal::Told);
    report.figure("pinned_first_per_s", pinned[0].round(), "/s", Goal::Told);
    report.figure("pinned_per_s", mean(worst).round(), "/s", Goal::Told);
    report.figure("pinned_snapshot_vs_free", mean(worst) / mean(&free), "x", Goal::AtLeast(0.9));
}

fn seconds(minutes: f64) -> Duration {
    Duration::from_secs_f64(minutes * 60.0)
}

#[expect(clippy::cast_precision_loss, reason = "a handful of parts")]
fn mean(rates: &[f64]) -> f64 {
    rates.iter().sum::<f64>() / rates.len() as f64
}

/// Writes `count` jobs that are due from tomorrow on.
pub async fn schedule(owner: &PgPool, count: i64) {
    let statement =
        "insert into krilin.jobs (id, kind, queue, args, state, priority, max_attempts, run_at, due_at, created_at)
        select gen_random_uuid(), 'noop', 'bench', '{}', 'scheduled', 0, 3, at, at, krilin.now()
        from (select krilin.now() + interval '1 day' + n * interval '1 s' as at from generate_series(1, $1) as n) as n";
    sqlx::raw_sql("set statement_timeout = 0").execute(owner).await.expect("anybody may");
    sqlx::query(statement).bind(count).execute(owner).await.expect("the rows are written");
    sqlx::raw_sql("vacuum analyze krilin.jobs").execute(owner).await.expect("the owner may");
}

/// Jobs come and go for `parts` times `part`, beside a million scheduled ones; the rate of each part.
#[expect(clippy::cast_precision_loss, reason = "counts of jobs")]
async fn run(ours: &Ours, owner: &PgPool, (part, parts): (Duration, u32)) -> Vec<f64> {
    sqlx::raw_sql("truncate krilin.jobs, krilin.job_history").execute(owner).await.expect("the owner may");
    schedule(owner, BESIDE).await;
    let worker = ours.worker();
    let done = Arc::new(AtomicBool::new(false));
    let enqueued = AtomicUsize::new(ours.seen.count.load(Ordering::Relaxed));
    let producing = async {
        while !done.load(Ordering::Relaxed) {
            if enqueued.load(Ordering::Relaxed).saturating_sub(ours.seen.count.load(Ordering::Relaxed)) < WAITING_MAX {
                ours.bulk_of(AT_ONCE, |_| noop()).await;
                enqueued.fetch_add(AT_ONCE, Ordering::Relaxed);
            } else {
                sleep(Duration::from_millis(2)).await;
            }
        }
    };
    let measuring = async {
        sleep(WARM_UP).await;
        let mut rates = Vec::new();
        let begun = Instant::now();
        let (mut from, mut count) = (begun, ours.seen.count.load(Ordering::Relaxed));
        for number in 1..=parts {
            sleep((begun + part * number).saturating_duration_since(Instant::now())).await;
            let (now, seen) = (Instant::now(), ours.seen.count.load(Ordering::Relaxed));
            rates.push((seen - count) as f64 / (now - from).as_secs_f64());
            eprintln!("{:>4} s {:>8.0} /s", begun.elapsed().as_secs(), rates[rates.len() - 1]);
            (from, count) = (now, seen);
        }
        done.store(true, Ordering::Relaxed);
        rates
    };
    let ((), rates) = tokio::join!(producing, measuring);
    worker.stop().await;
    rates
}
