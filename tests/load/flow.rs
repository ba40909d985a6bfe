//! Parts of `queue`: what limits cost, and what a noisy user does to the others.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use krilin::{
    model::{flow::Change, id::UserId, job::NewJob, secret::Secret},
    queue::worker::Lane,
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::{
    beside::settle,
    queue::{Ours, enqueue_all, noop, rate},
    report::{Goal, Report, quantile},
};

/// Rounds; each drains the same backlog in every way.
const ROUNDS: usize = 5;
/// Jobs of a backlog, and the users whose they are.
const BACKLOG: usize = 60_000;
const USERS: u128 = 1_000;
/// What the noisy user enqueues at once.
const NOISE: usize = 100_000;
/// Rounds of the neighbour, and the single jobs of the quiet half of each.
const NEIGHBOUR_ROUNDS: usize = 8;
const SINGLES: usize = 200;
/// The pause between two single jobs.
const PAUSE: Duration = Duration::from_millis(8);
/// What one `krilin work` runs at once unless it is told otherwise (`work.concurrency`).
const CONCURRENCY: usize = 8;
/// The longest a single job may wait before the bench gives up.
const WAIT_MAX: Duration = Duration::from_mins(1);

fn of(user: u128) -> NewJob {
    NewJob { user_id: Some(UserId(Uuid::from_u128(user))), ..noop() }
}

async fn set(ours: &Ours, queue: &str, change: Value) {
    let change: Change = serde_json::from_value(change).expect("it is written here");
    ours.queue.change_queue(queue, &change, "bench").await.expect("the queue is known");
}

/// Drains the backlog of many users with limits that do not bind, without any, and one that is nobody's.
pub async fn limits(report: &mut Report, ours: &Ours) {
    let (mut on, mut off, mut plain) = (Vec::new(), Vec::new(), Vec::new());
    let users = |number: usize| of(1 + number as u128 % USERS);
    for round in 0..ROUNDS {
        // Whoever comes second finds warmer pages; they take turns.
        for limited in [round % 2 == 0, round % 2 == 1] {
            if limited {
                set(ours, "all", json!({"max_running": 1_000_000})).await;
                let rate = json!({"units": 1_000_000_000, "period": "1m"});
                let limits = json!({"max_running": 1_000_000, "max_running_per_user": 100_000, "rate": rate});
                set(ours, "bench", limits).await;
            }
            ours.bulk_of(BACKLOG, users).await;
            let drained = rate(BACKLOG, ours.drain(BACKLOG).await);
            if limited { &mut on } else { &mut off }.push(drained);
            if limited {
                set(ours, "all", json!({"max_running": null})).await;
                let limits = json!({"max_running": null, "max_running_per_user": null, "rate": null});
                set(ours, "bench", limits).await;
            }
            ours.empty().await;
        }
        ours.bulk_of(BACKLOG, |_| noop()).await;
        plain.push(rate(BACKLOG, ours.drain(BACKLOG).await));
        ours.empty().await;
    }
    let [on, off, plain] = [on, off, plain].map(|mut rates| quantile(&mut rates, 0.5));
    report.figure("drain_of_nobody_per_s", plain.round(), "/s", Goal::Told);
    report.figure("drain_of_1k_users_per_s", off.round(), "/s", Goal::Told);
    report.figure("drain_limited_per_s", on.round(), "/s", Goal::Told);
    report.figure("fairness_on_vs_off", off / plain, "x", Goal::Told);
    report.figure("limits_on_vs_off", on / off, "x", Goal::AtLeast(0.9));
}

/// One user's single jobs, from the enqueue to the start: with nobody else there, and while another user's many are stored
/// and run.
pub async fn neighbour(report: &mut Report, ours: &Ours, superuser: &Secret) {
    let worker = ours.worker_of(Lane::new("bench", CONCURRENCY));
    let (mut quiet, mut noisy) = (Vec::new(), Vec::new());
    // The first ones find connections closed and plans unmade.
    singles(ours, 20, |_| true).await;
    for _ in 0..NEIGHBOUR_ROUNDS {
        // Else what vacuums after the many before runs in the quiet.
        settle(superuser).await;
        quiet.extend(singles(ours, SINGLES, |_| true).await);
        let until = ours.seen.count.load(Ordering::Relaxed) + NOISE;
        let lasts = |_| ours.seen.count.load(Ordering::Relaxed) < until;
        // Two users share no task.
        let storing = tokio::spawn(enqueue_all(ours.queue.clone(), NOISE, |_| of(1)));
        noisy.extend(singles(ours, usize::MAX, lasts).await);
        storing.await.expect("it does not panic");
    }
    worker.stop().await;
    ours.empty().await;
    let (alone, beside) = (quantile(&mut quiet, 0.99), quantile(&mut noisy, 0.99));
    report.figure("quiet_p50_ms", quantile(&mut quiet, 0.5), "ms", Goal::Told);
    report.figure("quiet_p99_ms", alone, "ms", Goal::Told);
    report.figure("noisy_p50_ms", quantile(&mut noisy, 0.5), "ms", Goal::Told);
    report.figure("noisy_p99_ms", beside, "ms", Goal::Told);
    #[expect(clippy::cast_precision_loss, reason = "a count of single jobs")]
    report.figure("noisy_singles", noisy.len() as f64, "", Goal::AtLeast(200.0));
    report.figure("noisy_neighbour_p99_ratio", beside / alone, "x", Goal::AtMost(2.0));
}

/// At most `count` jobs of one user, one after the other, while `go_on`; the milliseconds from each one's enqueue to its
/// start.
async fn singles(ours: &Ours, count: usize, go_on: impl Fn(usize) -> bool) -> Vec<f64> {
    let mut waits = Vec::new();
    while waits.len() < count && go_on(waits.len()) {
        sleep(PAUSE).await;
        let before = ours.timed.count.load(Ordering::Relaxed);
        let begun = Instant::now();
        ours.queue.enqueue(NewJob { kind: "timed".to_owned(), ..of(2) }).await.expect("enqueuing works");
        while ours.timed.count.load(Ordering::Relaxed) == before {
            let _ = timeout(Duration::from_millis(50), ours.timed.began.notified()).await;
            assert!(begun.elapsed() < WAIT_MAX, "a single job did not start");
        }
        let latest = ours.timed.latest.lock().expect("no panic while it is held").expect("it has begun");
        waits.push((latest - begun).as_secs_f64() * 1_000.0);
    }
    waits
}
