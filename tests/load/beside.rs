//! Part of `queue`: drains with nothing beside, with a million jobs that are not yet due, and with a million that have ended.
//! Each has a database of its own whose rows are written once, and they take turns: so all three meet the same moments of the
//! machine, and none is measured while the disk still takes in a million rows.

use krilin::{
    cluster::{Cluster, DATABASE},
    model::secret::Secret,
    store,
};
use sqlx::{Connection, PgConnection, PgPool};

use crate::{
    findings, fleet,
    queue::{MANY, Ours, rate},
    report::{Goal, Report, quantile},
};

/// Rows that lie beside: not yet due, or ended.
pub const BESIDE: i64 = 1_000_000;
/// Turns of each, and the drains in one.
const ROUNDS: usize = 12;
const DRAINS: usize = 3;

/// A database, and the rates of the drains in it.
struct Place {
    name: &'static str,
    ours: Ours,
    owner: PgPool,
    superuser: Secret,
    rates: Vec<f64>,
}

/// Measures all three; gives how many invariants do not hold then.
pub async fn beside(report: &mut Report, cluster: &Cluster) -> usize {
    let names = ["krilin_empty", "krilin_future", "krilin_finished"];
    let mut places = Vec::new();
    for name in names {
        places.push(Place::prepare(cluster, name).await);
    }
    schedule(&places[1].owner, BESIDE).await;
    finish(&places[2].owner, BESIDE).await;
    for place in &places {
        settle(&place.superuser).await;
    }
    for _ in 0..ROUNDS {
        for place in &mut places {
            place.turn().await;
        }
        // Whoever was first is last the next time.
        places.rotate_left(1);
    }
    let (mut medians, mut broken) = ([0.0; 3], 0);
    for mut place in places {
        let number = names.iter().position(|name| *name == place.name).expect("it is one of them");
        medians[number] = quantile(&mut place.rates, 0.5);
        broken += place.leave(cluster).await;
    }
    let [empty, future, finished] = medians;
    report.figure("drain_empty_per_s", empty.round(), "/s", Goal::Told);
    report.figure("future_1m_vs_empty", future / empty, "x", Goal::AtLeast(0.9));
    report.figure("finished_1m_vs_empty", finished / empty, "x", Goal::AtLeast(0.95));
    broken
}

impl Place {
    async fn prepare(cluster: &Cluster, name: &'static str) -> Self {
        fleet::prepare_database(cluster, name).await;
        let pool = |role, most| store::pool(&cluster.url(role, name), "krilin-bench", most).expect("our own url");
        let ours = Ours::new(&pool("krilin_runtime", 40));
        let superuser = cluster.url("postgres", name);
        Self { name, ours, owner: pool("krilin_owner", 1), superuser, rates: Vec::new() }
    }

    /// Drains [`MANY`] jobs [`DRAINS`] times. Leaves nothing to be vacuumed or written during the turn of another, nor of its
    /// jobs, except where there are more of the kind.
    async fn turn(&mut self) {
        for _ in 0..DRAINS {
            self.ours.bulk("noop", MANY).await;
            self.rates.push(rate(MANY, self.ours.drain(MANY).await));
        }
        eprintln!("{:<16} {:.0?} /s", self.name, &self.rates[self.rates.len() - DRAINS..]);
        if self.name != "krilin_finished" {
            sqlx::raw_sql("truncate krilin.job_history").execute(&self.owner).await.expect("the owner may");
        }
        settle(&self.superuser).await;
    }

    /// Gives the disk back, after a look at the invariants.
    async fn leave(self, cluster: &Cluster) -> usize {
        let broken = findings::count_at(&self.superuser).await;
        drop(self.ours);
        self.owner.close().await;
        let admin = cluster.url("postgres", DATABASE);
        let mut admin = PgConnection::connect(admin.expose()).await.expect("the cluster is there");
        let statement = format!("drop database {} with (force)", self.name);
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut admin).await.expect("a superuser may");
        broken
    }
}

/// Writes `count` jobs that are due from tomorrow on.
pub async fn schedule(owner: &PgPool, count: i64) {
    let statement =
        "insert into krilin.jobs (id, kind, queue, args, state, priority, max_attempts, run_at, due_at, created_at)
        select krilin.new_id(), 'noop', 'bench', '{}', 'scheduled', 0, 3, at, at, krilin.now()
        from (select krilin.now() + interval '1 day' + n * interval '1 s' as at from generate_series(1, $1) as n) as n";
    write(owner, statement, count).await;
}

/// Writes `count` jobs that have ended.
async fn finish(owner: &PgPool, count: i64) {
    let statement = "insert into krilin.job_history
            (id, kind, queue, args, state, priority, attempt, max_attempts, run_at, created_at, finished_at)
        select krilin.new_id(), 'noop', 'bench', '{}', 'done', 0, 1, 3, krilin.now(), krilin.now(), krilin.now()
        from generate_series(1, $1)";
    write(owner, statement, count).await;
}

async fn write(owner: &PgPool, statement: &'static str, count: i64) {
    sqlx::raw_sql("set statement_timeout = 0").execute(owner).await.expect("anybody may");
    sqlx::query(statement).bind(count).execute(owner).await.expect("the rows are written");
}

/// Lets what was just written be as if it had lain there for long: seen, counted, and on the disk, so that no drain after it
/// writes it back.
pub async fn settle(superuser: &Secret) {
    let mut connection = PgConnection::connect(superuser.expose()).await.expect("the cluster is there");
    for statement in ["vacuum analyze krilin.jobs, krilin.job_history", "checkpoint"] {
        sqlx::raw_sql(statement).execute(&mut connection).await.expect("a superuser may");
    }
}
