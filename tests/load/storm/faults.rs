//! What fails, in turn: a worker, Postgres, its connections, the pool, notices, and the time in which Postgres answers.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use krilin::{
    clock::SystemClock,
    cluster::{Cluster, DATABASE},
    model::{clock::Clock, secret::Secret},
    store,
};
use rustix::process::{Pid, Signal, kill_process};
use sqlx::PgPool;
use tokio::time::sleep;

use super::worker::Process;

/// Workers at any time.
const WORKERS: usize = 3;
/// The time before the first fault, by which the others are judged.
const CALM: Duration = Duration::from_secs(12);
/// After a worker was killed nothing else is done to it all for so long: its orphans' rescue is measured.
const AFTER_KILL: Duration = Duration::from_secs(16);
/// After any other fault.
const AFTER: Duration = Duration::from_secs(12);
/// Sessions are cut off within this.
const CUT: TimeDelta = TimeDelta::seconds(2);
/// How long a worker is watched for a job in the middle of which it can be killed.
const CATCH: Duration = Duration::from_secs(5);
/// How long Postgres does not answer.
const STALL: Duration = Duration::from_mins(1);
/// How long notices are kept from being heard, and the pool from being used.
const DEAF: Duration = Duration::from_secs(8);
/// How often the listening sessions are ended meanwhile.
const DEAFEN_EVERY: Duration = Duration::from_millis(100);

/// One thing that is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Signal 9 to a worker; another takes its place.
    Kill,
    /// Postgres ends without a checkpoint and starts again.
    Restart,
    /// Every session of Krilin's is ended.
    Terminate,
    /// Every connection that Postgres has left is taken.
    Exhaust,
    /// No notice is heard.
    Deafen,
    /// Postgres and all its sessions stand still for [`STALL`].
    Stall,
}

impl Fault {
    /// The name of its figure.
    pub fn figure(self) -> &'static str {
        match self {
            Self::Kill => "workers_killed",
            Self::Restart => "postgres_restarts",
            Self::Terminate => "sessions_terminated",
            Self::Exhaust => "connections_exhausted",
            Self::Deafen => "notices_silenced",
            Self::Stall => "stalls_of_60_s",
        }
    }
}

/// One round. The stall is done once, in the middle of the whole.
const ROUND: [Fault; 7] =
    [Fault::Kill, Fault::Terminate, Fault::Kill, Fault::Restart, Fault::Exhaust, Fault::Kill, Fault::Deafen];

/// The fleet, and what was done to it.
pub struct Storm {
    cluster: Cluster,
    url: Secret,
    /// As the superuser: what looks on and ends sessions.
    admin: PgPool,
    workers: Vec<Process>,
    /// When each killed worker was killed.
    pub killed: BTreeMap<String, DateTime<Utc>>,
    /// When each fault was over.
    pub over: Vec<(Fault, DateTime<Utc>)>,
    /// When sessions were cut off, from and to: of a claim that committed just then, the worker may never have heard.
    pub cuts: Vec<(DateTime<Utc>, DateTime<Utc>)>,
    /// When the first fault began.
    pub calm_until: Option<DateTime<Utc>>,
}

impl Storm {
    /// Workers over `cluster`.
    pub async fn start(cluster: Cluster) -> Self {
        let url = cluster.url("krilin_runtime", DATABASE);
        let admin = store::pool(&cluster.url("postgres", DATABASE), "krilin-storm", 2).expect("of our own making");
        let mut workers = Vec::new();
        for _ in 0..WORKERS {
            workers.push(Process::start(&url).await);
        }
        Self {
            cluster,
            url,
            admin,
            workers,
            killed: BTreeMap::new(),
            over: Vec::new(),
            cuts: Vec::new(),
            calm_until: None,
        }
    }

    /// The least that all faults in turn take, in seconds.
    pub fn seconds() -> u64 {
        (CALM + STALL + AFTER).as_secs() + round_seconds()
    }

    /// Does everything in turn, again and again for about `seconds`.
    pub async fn run(&mut self, seconds: u64) {
        let begun = Instant::now();
        sleep(CALM).await;
        self.calm_until = Some(SystemClock.now());
        let mut stalled = false;
        loop {
            for fault in ROUND {
                self.make(fault).await;
            }
            if !stalled {
                self.make(Fault::Stall).await;
                stalled = true;
            }
            if begun.elapsed().as_secs() + round_seconds() > seconds {
                return;
            }
        }
    }

    async fn make(&mut self, fault: Fault) {
        let begun = SystemClock.now();
        match fault {
            Fault::Kill => self.kill().await,
            Fault::Restart => {
                self.cluster.crash().await.expect("the cluster is ours");
                self.cluster.resume().await.expect("Postgres recovers from a crash");
            }
            Fault::Terminate => self.end_sessions("true").await,
            Fault::Exhaust => self.exhaust().await,
            Fault::Deafen => {
                let begun = Instant::now();
                while begun.elapsed() < DEAF {
                    self.end_sessions("query ilike 'listen %'").await;
                    sleep(DEAFEN_EVERY).await;
                }
            }
            Fault::Stall => {
                let processes = self.stand_still();
                sleep(STALL).await;
                for process in processes {
                    let _ = kill_process(process, Signal::CONT);
                }
            }
        }
        let now = SystemClock.now();
        eprintln!("{:<22} over at {}", fault.figure(), now.format("%T"));
        self.over.push((fault, now));
        if matches!(fault, Fault::Restart | Fault::Terminate | Fault::Exhaust) {
            // Hoarding goes on long after the sessions were ended.
            self.cuts.push((begun, now.min(begun + CUT)));
        }
        sleep(if fault == Fault::Kill { AFTER_KILL } else { AFTER }).await;
    }

    /// Kills the oldest worker in the middle of a job and starts another.
    async fn kill(&mut self) {
        let mut victim = self.workers.remove(0);
        self.catch(&victim.id).await;
        self.killed.insert(victim.id.clone(), SystemClock.now());
        victim.kill();
        self.workers.push(Process::start(&self.url).await);
    }

    /// Waits until `worker` has just begun a job that takes long, at most [`CATCH`]: where jobs are few, most kills would
    /// leave nothing to rescue.
    async fn catch(&self, worker: &str) {
        let begun = Instant::now();
        let statement = "select exists (
                select from krilin.jobs
                where state = 'running' and worker_id::text = $1 and started_at > krilin.now() - interval '100 milliseconds'
                    and ((args ->> 'before')::integer > 0 or (args ->> 'after')::integer > 0))";
        while begun.elapsed() < CATCH {
            let caught = sqlx::query_scalar(statement).bind(worker).fetch_one(&self.admin).await;
            if caught.unwrap_or(false) {
                return;
            }
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the sessions of Krilin's role for which `which` holds.
    async fn end_sessions(&self, which: &'static str) {
        let statement = format!(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where usename = 'krilin_runtime' and pid <> pg_backend_pid() and ({which})"
        );
        let ended: Result<i64, _> = sqlx::query_scalar(sqlx::AssertSqlSafe(statement)).fetch_one(&self.admin).await;
        if let Err(error) = ended {
            eprintln!("ending sessions: {error}");
        }
    }

    /// Takes every connection that is left while the workers have lost theirs, and keeps them for a while.
    async fn exhaust(&self) {
        let hoard = store::pool(&self.url, "krilin-hoard", 400).expect("of our own making");
        let mut taken = Vec::new();
        self.end_sessions("application_name <> 'krilin-hoard'").await;
        let begun = Instant::now();
        while begun.elapsed() < DEAF {
            match tokio::time::timeout(Duration::from_millis(200), hoard.acquire()).await {
                Ok(Ok(connection)) => taken.push(connection),
                // None is left; whoever lets go of one now loses it to us.
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
        eprintln!("hoarded {} connections", taken.len());
        drop(taken);
        hoard.close().await;
    }

    /// Stops the postmaster and its children where they stand; gives them.
    fn stand_still(&self) -> Vec<Pid> {
        let postmaster = self.cluster.pid().expect("Postgres runs");
        let stop = |pid: u32| {
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw)?;
            kill_process(pid, Signal::STOP).ok().map(|()| pid)
        };
        // The postmaster first: it starts no more children then.
        let mut stopped: Vec<Pid> = stop(postmaster).into_iter().collect();
        stopped.extend(children(postmaster).into_iter().filter_map(stop));
        stopped
    }

    /// Ends the workers and Postgres.
    pub async fn stop(mut self) {
        self.workers.iter_mut().for_each(Process::kill);
        self.admin.close().await;
        self.cluster.stop().await.expect("the cluster is ours");
    }
}

fn round_seconds() -> u64 {
    let seconds = |fault: &Fault| match fault {
        Fault::Kill => AFTER_KILL.as_secs(),
        Fault::Exhaust | Fault::Deafen => (DEAF + AFTER).as_secs(),
        _ => AFTER.as_secs(),
    };
    ROUND.iter().map(seconds).sum()
}

/// The processes whose parent is `parent`.
fn children(parent: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("Linux has /proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| {
        // After the command in parentheses come the state and the parent (proc(5)).
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
        after.split_whitespace().nth(1).and_then(|parent| parent.parse().ok()) == Some(parent)
    })
    .collect()
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.workers.iter_mut().for_each(Process::kill);
    }
}
