//! The systems, and one round of one of them: each command in a fresh process on a database of the system's own, with what
//! Postgres wrote and committed meanwhile.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use krilin_os::{
    cluster::{Cluster, DATABASE},
    jobs::retention::{HISTORY_KEPT, KEYS_KEPT},
    queue::fsck,
    store::schema,
};
use serde_json::Value;
use sqlx::{Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use crate::{http, table::Table, wal};

/// Jobs of `bulk` and `drain`, and how often a round has them.
const MANY: usize = 60_000;
const MANY_TIMES: usize = 2;
/// Jobs stored one by one: by one producer, by sixteen; and how often a round has them.
const SINGLES: [(usize, usize, &str); 2] = [(2_000, 1, "enqueue1"), (8_000, 16, "enqueue16")];
const SINGLES_TIMES: usize = 3;
/// Jobs of the coalesced limit and of those over HTTP, which are faster.
const SINGLES_FAST: usize = 64_000;
/// Jobs in a transaction each.
const TRANSACTIONAL: usize = 10_000;
/// Idle pickups, and the pause between two in milliseconds.
const PICKUPS: [usize; 2] = [200, 10];
/// The steady load: jobs per second, seconds.
const PACED: [usize; 2] = [200, 2];
/// How long an idle worker is up before its memory is read, in seconds.
const IDLE: usize = 4;
/// How long a command may take before it is ended and counts as one that failed.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the memory of a draining worker is read.
const SAMPLE: Duration = Duration::from_millis(10);

/// One system: its name in the table, its program, and what it is.
pub struct System {
    /// In the table and in the names of figures.
    pub name: &'static str,
    program: &'static [&'static str],
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Ours,
    Limit,
    Peer,
}

/// Krilin, plain SQL, the peers.
pub const SYSTEMS: &[System] = &[
    System { name: "krilin", program: &["bench-krilin"], kind: Kind::Ours },
    System { name: "limit", program: &["bench-limit"], kind: Kind::Limit },
    System { name: "graphile_worker_rs", program: &["bench-graphile"], kind: Kind::Peer },
    System { name: "apalis_postgres", program: &["bench-apalis"], kind: Kind::Peer },
    System { name: "awa", program: &["bench-awa"], kind: Kind::Peer },
    System { name: "pg_boss", program: &["node", "pg-boss.mjs"], kind: Kind::Peer },
    System { name: "graphile_worker_js", program: &["node", "graphile-worker.mjs"], kind: Kind::Peer },
];

impl System {
    /// Whether it is a system that a user would choose instead.
    pub fn is_peer(&self) -> bool {
        self.kind == Kind::Peer
    }

    fn command(&self) -> Command {
        let built = std::env::current_exe().expect("this program").with_file_name(self.program[0]);
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../target/peers/node");
        let mut command = if built.exists() { Command::new(built) } else { Command::new(self.program[0]) };
        command.args(self.program[1..].iter().map(|script| scripts.join(script)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// The cluster, and who watches it.
pub struct Ground {
    admin: PgPool,
    urls: Box<dyn Fn(&str) -> String + Send + Sync>,
    owned: String,
    superuser: String,
    /// How often an invariant of Krilin's queue did not hold after a measure.
    pub broken: usize,
}

impl Ground {
    /// Over a cluster that was just started.
    pub async fn new(cluster: &Cluster) -> Self {
        let mut admin = PgConnection::connect(cluster.superuser_url().expose()).await.expect("the cluster is ready");
        schema::create_roles(&mut admin).await.expect("the superuser may create roles");
        schema::create_database(&mut admin, DATABASE, None).await.expect("the superuser may create a database");
        wal::settle(&mut admin).await;
        let admin = PgPoolOptions::new().max_connections(2).connect(cluster.superuser_url().expose()).await;
        let directory = cluster.directory().to_owned();
        let runtime = cluster.url("krilin_runtime", DATABASE).expose().to_owned();
        let urls = move |name: &str| match name {
            "krilin" => runtime.clone(),
            _ => krilin_os::cluster::url(&directory, "postgres", &database(name)),
        };
        let owned = cluster.url("krilin_owner", DATABASE).expose().to_owned();
        let superuser = cluster.url("postgres", DATABASE).expose().to_owned();
        Self { admin: admin.expect("the cluster is ready"), urls: Box::new(urls), owned, superuser, broken: 0 }
    }

    /// Makes the system's database and schema. Says why when it does not run here.
    pub async fn install(&mut self, system: &System) -> Result<(), String> {
        if system.kind == Kind::Ours {
            let mut owner = PgConnection::connect(&self.owned).await.expect("the owner may connect");
            schema::migrate(&mut owner).await.expect("the migrations apply to an empty database");
            let bench = "create table krilin.bench_effects (id uuid primary key, day text not null);
                         grant truncate on krilin.jobs, krilin.job_history, krilin.bench_effects to krilin_runtime";
            sqlx::raw_sql(bench).execute(&mut owner).await.expect("the owner may create a table");
        } else {
            let create = format!("create database {}", database(system.name));
            sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&self.admin).await.expect("a database");
        }
        self.ask(system, "setup", &[]).await.map(drop)
    }

    /// One round: every measure once or a few times, but for the steady load.
    pub async fn round(&mut self, system: &System, table: &mut Table) {
        let name = system.name;
        for (jobs, producers, measure) in [SINGLES; SINGLES_TIMES].into_iter().flatten() {
            self.empty(system).await;
            self.rate(system, "enqueue", &[jobs, producers], measure, table).await;
        }
        for _ in 0..MANY_TIMES {
            self.empty(system).await;
            self.rate(system, "bulk", &[MANY], "bulk", table).await;
            self.rate(system, "drain", &[MANY], "drain", table).await;
        }
        if system.kind != Kind::Peer {
            self.beyond(system, table).await;
        }
        self.waits(system, ("pickup", PICKUPS, "idle"), table).await;
        self.empty(system).await;
        if let Ok((_, memory)) = self.watched(system, "idle", &[IDLE]).await {
            table.add(name, "rss_idle_mb", memory.last);
        }
    }

    /// The steady load, once.
    pub async fn load(&mut self, system: &System, table: &mut Table) {
        self.waits(system, ("paced", PACED, "load200"), table).await;
    }

    async fn waits(
        &mut self,
        system: &System,
        (command, numbers, measure): (&str, [usize; 2], &str),
        table: &mut Table,
    ) {
        self.empty(system).await;
        // What others wrote is on the disk, and no commit waits for it.
        sqlx::raw_sql("checkpoint").execute(&self.admin).await.expect("the superuser may");
        if let Some(said) = self.try_ask(system, command, &numbers).await {
            for part in ["p50", "p99"] {
                let value = said[format!("{part}_ms")].as_f64().unwrap_or(f64::NAN);
                table.add(system.name, &format!("{measure}_{part}_ms"), value);
            }
        }
    }

    /// What only Krilin and plain SQL are asked for.
    async fn beyond(&mut self, system: &System, table: &mut Table) {
        self.empty(system).await;
        if system.kind == Kind::Limit {
            self.rate(system, "coalesced", &[SINGLES_FAST, 16], "enqueue16_coalesced", table).await;
            self.empty(system).await;
            self.ask(system, "bulk", &[TRANSACTIONAL]).await.expect("it stores");
        } else {
            let served = http::measure(system.command().arg("serve").arg((self.urls)(system.name)), SINGLES_FAST).await;
            table.add(system.name, "http64", served);
            self.empty(system).await;
        }
        self.rate(system, "transactional", &[TRANSACTIONAL], "transactional", table).await;
    }

    /// A rate, with what it cost Postgres per job, and the memory of whoever did it.
    async fn rate(&mut self, system: &System, command: &str, numbers: &[usize], measure: &str, table: &mut Table) {
        sqlx::raw_sql("checkpoint").execute(&self.admin).await.expect("the superuser may");
        let before = self.written(system).await;
        match self.watched(system, command, numbers).await {
            Ok((said, memory)) => {
                let after = self.written(system).await;
                table.add(system.name, measure, said["per_s"].as_f64().unwrap_or(f64::NAN));
                let jobs = numbers[0] as f64;
                if matches!(measure, "drain" | "enqueue1") {
                    table.add(system.name, &format!("{measure}_wal_bytes_per_job"), (after.0 - before.0) / jobs);
                    table.add(system.name, &format!("{measure}_commits_per_job"), (after.1 - before.1) / jobs);
                }
                if measure == "drain" {
                    table.add(system.name, "rss_draining_mb", memory.most);
                }
            }
            Err(why) => eprintln!("{}: {command}: {why}", system.name),
        }
    }

    /// Bytes of WAL so far, and commits in the system's database.
    async fn written(&self, system: &System) -> (f64, f64) {
        let name = if system.kind == Kind::Ours { DATABASE.to_owned() } else { database(system.name) };
        // Backends tell their counts when they end, which a process's end brings about within moments.
        tokio::time::sleep(Duration::from_millis(200)).await;
        let row: (f64, i64) = sqlx::query_as(
            "select (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::float8, xact_commit
             from pg_stat_database where datname = $1",
        )
        .bind(name)
        .fetch_one(&self.admin)
        .await
        .expect("the database exists");
        (row.0, row.1 as f64)
    }

    async fn empty(&mut self, system: &System) {
        if system.kind == Kind::Ours {
            self.broken += self.findings().await;
        }
        self.ask(system, "empty", &[]).await.expect("its tables can be emptied");
    }

    /// What `krilin queue fsck` finds, each told.
    async fn findings(&self) -> usize {
        let mut db = PgConnection::connect(&self.superuser).await.expect("the cluster is there");
        let bounds = fsck::bounds(KEYS_KEPT, HISTORY_KEPT, fsck::TIMEOUT);
        let findings = fsck::check(&mut db, &bounds).await.expect("the cluster is there");
        let broken: Vec<_> = findings.iter().filter(|finding| !finding.holds()).collect();
        broken.iter().for_each(|finding| eprintln!("fsck: {finding:?}"));
        broken.len()
    }

    async fn ask(&self, system: &System, command: &str, numbers: &[usize]) -> Result<Value, String> {
        self.watched(system, command, numbers).await.map(|(said, _)| said)
    }

    async fn try_ask(&self, system: &System, command: &str, numbers: &[usize]) -> Option<Value> {
        self.ask(system, command, numbers).await.map_err(|why| eprintln!("{}: {command}: {why}", system.name)).ok()
    }

    async fn watched(&self, system: &System, name: &str, numbers: &[usize]) -> Result<(Value, Memory), String> {
        let mut command = system.command();
        command.arg(name).arg((self.urls)(system.name)).args(numbers.iter().map(usize::to_string));
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let (mut memory, begun) = (Memory::default(), Instant::now());
        let line = loop {
            match tokio::time::timeout(SAMPLE, lines.next_line()).await {
                Ok(line) => break line.map_err(|error| error.to_string())?,
                Err(_) if begun.elapsed() > PATIENCE => return Err(format!("it said nothing for {PATIENCE:?}")),
                Err(_) => memory.look(&child),
            }
        };
        let ended = child.wait_with_output().await.map_err(|error| error.to_string())?;
        let words = String::from_utf8_lossy(&ended.stderr);
        let line = line.filter(|_| ended.status.success()).ok_or_else(|| words.trim().to_owned())?;
        Ok((serde_json::from_str(&line).map_err(|error| error.to_string())?, memory))
    }
}

/// Resident memory of a process in MB, as it was seen.
#[derive(Default)]
struct Memory {
    last: f64,
    most: f64,
}

impl Memory {
    fn look(&mut self, child: &Child) {
        let path = child.id().map(|id| PathBuf::from(format!("/proc/{id}/status")));
        let status = path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kb: Option<f64> = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
        if let Some(kb) = kb {
            self.last = kb / 1_024.0;
            self.most = self.most.max(self.last);
        }
    }
}

fn database(system: &str) -> String {
    format!("bench_{system}")
}
