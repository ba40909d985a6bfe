//! Parts of `queue`: minutes of jobs that come and go beside a million scheduled ones, as fast as they can; and the same
//! while a reader holds its snapshot, so that no dead row can be removed. The last minute takes turns with the first minute
//! of a fresh database, so that both meet the same moments of the machine.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use krilin::{
    cluster::{Cluster, DATABASE},
    model::secret::Secret,
    store,
};
use sqlx::{Connection, PgConnection, PgPool};
use tokio::time::sleep;

use crate::{
    beside::{BESIDE, schedule, settle},
    findings, fleet,
    queue::{Ours, noop},
    report::{Goal, Report, quantile},
};

/// How long it goes on, and how long under a snapshot, in minutes.
const FREE_MINUTES: f64 = 5.0;
const PINNED_MINUTES: f64 = 10.0;
/// The last of so many parts of the free time is compared, and as much of the pinned one.
const PARTS: u32 = 5;
/// Stretches of that part, each beside one of the fresh database.
const TURNS: u32 = 6;
/// At most so many jobs wait, and so many are enqueued at once.
const WAITING_MAX: usize = 20_000;
const AT_ONCE: usize = 5_000;
/// Before the first minute begins, and before each stretch, while what the other one left is drained.
const WARM_UP: Duration = Duration::from_secs(5);
const LEAD: Duration = Duration::from_secs(1);
/// The database that is fresh when the other is not.
const FRESH: &str = "krilin_fresh";

/// Runs both, or only the free one. `minutes` is another length for the free run; the pinned one takes twice as long. Gives how
/// many invariants do not hold then in the fresh database.
pub async fn churn(
    report: &mut Report,
    ours: &Ours,
    cluster: &Cluster,
    (minutes, pinned): (Option<f64>, bool),
) -> usize {
    let free = minutes.unwrap_or(FREE_MINUTES);
    let part = seconds(free) / PARTS;
    fleet::prepare_database(cluster, FRESH).await;
    let runtime = store::pool(&cluster.url("krilin_runtime", FRESH), "krilin-bench", 40).expect("our own url");
    let another = Ours::new(&runtime);
    let (old, fresh) = (Place::of(cluster, DATABASE, ours), Place::of(cluster, FRESH, &another));
    let (last, first) = old.beside(&fresh, seconds(free).saturating_sub(part), part).await;
    report.figure("churn_minutes", free, "", Goal::Told);
    report.figure("churn_first_per_s", first.round(), "/s", Goal::Told);
    report.figure("churn_last_per_s", last.round(), "/s", Goal::Told);
    report.figure("churn_last_vs_first", last / first, "x", Goal::AtLeast(0.9));
    if !pinned {
        return findings::count_at(&fresh.superuser).await;
    }
    let minutes = minutes.map_or(PINNED_MINUTES, |minutes| 2.0 * minutes);
    let mut reader = PgConnection::connect(old.superuser.expose()).await.expect("the cluster is there");
    let hold = "set idle_in_transaction_session_timeout = 0; begin isolation level repeatable read";
    sqlx::raw_sql(hold).execute(&mut reader).await.expect("anybody may");
    let _: i64 =
        sqlx::query_scalar("select count(*) from krilin.users").fetch_one(&mut reader).await.expect("it counts");
    let (pinned, free) = old.beside(&fresh, seconds(minutes).saturating_sub(part), part).await;
    sqlx::raw_sql("commit").execute(&mut reader).await.expect("nobody has ended the reader");
    report.figure("pinned_minutes", minutes, "", Goal::Told);
    report.figure("free_per_s", free.round(), "/s", Goal::Told);
    report.figure("pinned_per_s", pinned.round(), "/s", Goal::Told);
    report.figure("pinned_snapshot_vs_free", pinned / free, "x", Goal::AtLeast(0.9));
    findings::count_at(&fresh.superuser).await
}

fn seconds(minutes: f64) -> Duration {
    Duration::from_secs_f64(minutes * 60.0)
}

/// A database in which jobs come and go.
struct Place<'a> {
    ours: &'a Ours,
    owner: PgPool,
    superuser: Secret,
    enqueued: AtomicUsize,
}

impl<'a> Place<'a> {
    fn of(cluster: &Cluster, database: &str, ours: &'a Ours) -> Self {
        let owner = store::pool(&cluster.url("krilin_owner", database), "krilin-bench", 1).expect("our own url");
        Self { ours, owner, superuser: cluster.url("postgres", database), enqueued: AtomicUsize::new(0) }
    }

    fn seen(&self) -> usize {
        self.ours.seen.count.load(Ordering::Relaxed)
    }

    /// Nothing but a million scheduled jobs.
    async fn begin(&self) {
        sqlx::raw_sql("truncate krilin.jobs, krilin.job_history").execute(&self.owner).await.expect("the owner may");
        schedule(&self.owner, BESIDE).await;
        settle(&self.superuser).await;
        self.enqueued.store(self.seen(), Ordering::Relaxed);
    }

    /// Runs alone for `alone`, and then for `part` in turns with `fresh`, for which that is its first time: the medians of
    /// the rates of both in the turns.
    async fn beside(&self, fresh: &Self, alone: Duration, part: Duration) -> (f64, f64) {
        fresh.begin().await;
        self.begin().await;
        // The workers stay, as they would for ten minutes: a new one looks over all that has died once more.
        let old_worker = self.ours.worker();
        eprintln!("alone {:>8.0} /s", self.run(alone).await);
        let fresh_worker = fresh.ours.worker();
        fresh.run(WARM_UP).await;
        let (mut last, mut first) = (Vec::new(), Vec::new());
        for _ in 0..TURNS {
            last.push(self.run(part / TURNS).await);
            first.push(fresh.run(part / TURNS).await);
            eprintln!("turn  {:>8.0} /s, fresh {:>8.0} /s", last[last.len() - 1], first[first.len() - 1]);
        }
        tokio::join!(old_worker.stop(), fresh_worker.stop());
        (quantile(&mut last, 0.5), quantile(&mut first, 0.5))
    }

    /// Jobs come for `time`, and the worker that is there has them go: how many in a second.
    #[expect(clippy::cast_precision_loss, reason = "counts of jobs")]
    async fn run(&self, time: Duration) -> f64 {
        let done = AtomicBool::new(false);
        let producing = async {
            while !done.load(Ordering::Relaxed) {
                if self.enqueued.load(Ordering::Relaxed).saturating_sub(self.seen()) < WAITING_MAX {
                    self.ours.bulk_of(AT_ONCE, |_| noop()).await;
                    self.enqueued.fetch_add(AT_ONCE, Ordering::Relaxed);
                } else {
                    sleep(Duration::from_millis(2)).await;
                }
            }
        };
        let measuring = async {
            sleep(LEAD).await;
            let (begun, count) = (Instant::now(), self.seen());
            sleep(time).await;
            let rate = (self.seen() - count) as f64 / begun.elapsed().as_secs_f64();
            done.store(true, Ordering::Relaxed);
            rate
        };
        let ((), rate) = tokio::join!(producing, measuring);
        rate
    }
}
