//! Checks of the server that Krilin's database lives on: whether it keeps what it says it keeps, whether there is room, and
//! whether anybody is in the way.

use sqlx::PgConnection;

use super::Check;
use crate::store::{Error, health};

/// A transaction that is open for so long keeps dead rows from being removed, and claims get slower.
const LONG_TRANSACTION_S: f64 = 300.0;
/// The most such transactions that are named.
const NAMED: i64 = 5;
/// The share of the connections that may be in use.
const CONNECTIONS_PERCENT: i64 = 80;
/// Days that must have a partition of the history; the retention job makes seven.
const DAYS: i64 = 3;
/// So many times the threshold means that autovacuum does not keep up.
const DEAD_TIMES: i64 = 10;
/// Postgres refuses to write at two thousand million; by default it freezes at two hundred million.
const TRANSACTION_AGE_MAX: i64 = 1_000_000_000;

/// What may not be off, what it means when it is, and whether that is worse than a warning.
const SETTINGS: [(&str, &str, bool); 5] = [
    ("autovacuum", "dead rows are never removed, and the queue gets slower by the hour", true),
    ("data_checksums", "a damaged disk goes unnoticed", false),
    ("fsync", "a power cut can lose or damage anything", true),
    ("full_page_writes", "a power cut can damage pages", true),
    ("synchronous_commit", "a power cut can lose jobs that were accepted, and the ends of jobs", false),
];

pub(super) async fn checks(connection: &mut PgConnection) -> Vec<Check> {
    vec![
        or_away("durability", durability(connection).await),
        or_away("connections", connections(connection).await),
        or_away("transactions", transactions(connection).await),
        or_away("transaction ids", transaction_age(connection).await),
        or_away("vacuum", vacuum(connection).await),
        or_away("partitions", partitions(connection).await),
        or_away("listeners", listeners(connection).await),
    ]
}

fn or_away(name: &'static str, check: Result<Check, Error>) -> Check {
    check.unwrap_or_else(|error| Check::fail(name, error.to_string(), "is Postgres in order? its log says more"))
}

async fn durability(connection: &mut PgConnection) -> Result<Check, Error> {
    let names = SETTINGS.map(|(name, ..)| name);
    let settings = health::settings(connection, &names).await?;
    let off = settings.iter().filter(|setting| setting.setting == "off");
    let off: Vec<_> = off.filter_map(|off| SETTINGS.iter().find(|(name, ..)| *name == off.name)).collect();
    let worst = off.iter().any(|(.., worse)| *worse);
    let finding: Vec<_> = off.iter().map(|(name, meaning, _)| format!("{name} is off: {meaning}")).collect();
    let remedy = off.iter().map(|(name, ..)| match *name {
        "data_checksums" => "pg_checksums --enable (Postgres must be stopped)".to_owned(),
        name => format!("alter system set {name} = on"),
    });
    let remedy = remedy.collect::<Vec<_>>().join("; ");
    Ok(match (off.is_empty(), worst) {
        (true, _) => Check::ok("durability", "what is committed is on the disk"),
        (false, true) => Check::fail("durability", finding.join("; "), &remedy),
        (false, false) => Check::warn("durability", finding.join("; "), &remedy),
    })
}

async fn connections(connection: &mut PgConnection) -> Result<Check, Error> {
    let (open, most, reserved) = health::connections(connection).await?;
    let room = most - reserved;
    let finding = format!("{open} of {room} are in use");
    Ok(if open * 100 <= room * CONNECTIONS_PERCENT {
        Check::ok("connections", finding)
    } else {
        Check::warn(
            "connections",
            format!("{finding}; a worker that starts, or reconnects, may find none"),
            "lower database.serve_connections and database.work_connections, or raise max_connections",
        )
    })
}

async fn transactions(connection: &mut PgConnection) -> Result<Check, Error> {
    let (open, hidden) = health::long_transactions(connection, LONG_TRANSACTION_S, NAMED).await?;
    let Some(longest) = open.first() else {
        let words = if hidden == 0 {
            "none is open for long".to_owned()
        } else {
            format!("none that may be seen is open for long; {hidden} sessions of other roles hide theirs")
        };
        return Ok(Check::ok("transactions", words));
    };
    let told: Vec<_> = open
        .iter()
        .map(|open| {
            let pins = if open.pins { ", holds a snapshot" } else { "" };
            format!("{} of {} for {} s ({}{pins}, pid {})", open.name, open.role, open.age_s, open.state, open.pid)
        })
        .collect();
    let finding = format!("open for long: {}; dead rows pile up meanwhile, and claims get slower", told.join("; "));
    Ok(Check::warn("transactions", finding, &format!("let it end, or: select pg_terminate_backend({})", longest.pid)))
}

async fn transaction_age(connection: &mut PgConnection) -> Result<Check, Error> {
    let age = health::transaction_age(connection).await?;
    let finding = format!("the oldest row that is not frozen is {age} transactions old");
    Ok(if age <= TRANSACTION_AGE_MAX {
        Check::ok("transaction ids", finding)
    } else {
        let finding = format!("{finding}; at two thousand million Postgres stops writing");
        Check::fail(
            "transaction ids",
            finding,
            "end long transactions and stale replication slots, then: vacuum freeze",
        )
    })
}

async fn vacuum(connection: &mut PgConnection) -> Result<Check, Error> {
    let tables = health::vacuumed(connection).await?;
    let forbidden: Vec<_> = tables.iter().filter(|table| !table.enabled).map(|table| table.name.as_str()).collect();
    if let Some(first) = forbidden.first() {
        let finding = format!("autovacuum is switched off for {}; they grow and get slower", forbidden.join(", "));
        return Ok(Check::fail("vacuum", finding, &format!("alter table krilin.{first} reset (autovacuum_enabled)")));
    }
    let behind = tables.iter().filter(|table| table.dead > table.threshold * DEAD_TIMES);
    let behind: Vec<_> = behind
        .map(|table| {
            let last = table.vacuumed_s.map_or_else(|| "never".to_owned(), |seconds| format!("{seconds} s ago"));
            format!("{} has {} dead rows (vacuumed {last})", table.name, table.dead)
        })
        .collect();
    Ok(if behind.is_empty() {
        Check::ok("vacuum", format!("keeps up with the {} tables that turn over quickly", tables.len()))
    } else {
        let remedy =
            "see the checks `autovacuum` and `transactions`; vacuum (verbose) krilin.jobs says what is in the way";
        Check::warn("vacuum", format!("{}; claims get slower", behind.join(", ")), remedy)
    })
}

async fn partitions(connection: &mut PgConnection) -> Result<Check, Error> {
    let days = health::days_ahead(connection).await?;
    let remedy = "krilin job enqueue retention, and see why the daily one does not: krilin job list --kind retention";
    Ok(match days {
        0 => {
            let finding = "today has no partition of the history; what ends today lies in the default one";
            Check::fail("partitions", finding, remedy)
        }
        days if days < DAYS => Check::warn("partitions", format!("of the history reach for {days} days only"), remedy),
        days => Check::ok("partitions", format!("of the history reach for {days} days")),
    })
}

async fn listeners(connection: &mut PgConnection) -> Result<Check, Error> {
    let count = health::listeners(connection).await?;
    Ok(if count > 0 {
        Check::ok("listeners", format!("{count} sessions hear notices"))
    } else {
        Check::ok(
            "listeners",
            "no session hears notices; workers and servers, where there are any, find jobs by polling",
        )
    })
}
