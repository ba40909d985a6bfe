//! Checks of the database: reachable, of the right version, with roles that lock and locks that are locked.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use super::{Check, Context};
use crate::{
    model::{clock::Clock, secret::Secret},
    store::{
        self,
        health::{self, Server},
        schema,
    },
};

/// A slower autovacuum lets the queue's dead rows pile up between two rounds.
const NAPTIME_MAX_S: i64 = 15;
/// Clocks further apart than this make schedules and log lines misleading. (Leases are on the database's clock alone.)
const CLOCK_DIFFERENCE_MAX_MS: i64 = 2_000;
/// A reaper takes an expired lease back within seconds; one this old was never looked at.
const ABANDONED_AFTER_S: i64 = 60;

pub(super) async fn checks(context: &Context) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Ok(url) = context.owner_database_url() {
        match connect(&url).await {
            Ok((_, server)) => checks.push(role("owner role", &server, "krilin_owner")),
            Err(error) => checks.push(away("owner role", &error)),
        }
    }
    let url = match context.database_url() {
        Ok(url) => url,
        Err(error) => {
            checks.push(Check::fail(
                "connection",
                format!("{error:#}"),
                "start `krilin up`, or give the credential `database_url`",
            ));
            return checks;
        }
    };
    let before = context.clock.now();
    match connect(&url).await {
        Ok((mut connection, server)) => {
            checks.push(Check::ok("connection", format!("Postgres {} answers", server.version)));
            checks.push(role("runtime role", &server, "krilin_runtime"));
            checks.push(naptime(&server));
            checks.push(clock(before, server.now, context.clock.now()));
            checks.extend(contents(&mut connection).await);
        }
        Err(error) => checks.push(away("connection", &error)),
    }
    checks
}

async fn connect(url: &Secret) -> Result<(PgConnection, Server), store::Error> {
    let mut connection = store::connect(url, "krilin-doctor").await?;
    let server = health::server(&mut connection).await?;
    Ok((connection, server))
}

fn away(name: &'static str, error: &store::Error) -> Check {
    Check::fail(name, error.to_string(), "is Postgres running, and is the connection string right?")
}

fn role(name: &'static str, server: &Server, expected: &str) -> Check {
    let Server { role, superuser, bypass_rls, .. } = server;
    if *superuser || *bypass_rls {
        let finding = format!("`{role}` is not bound by row-level security");
        return Check::fail(name, finding, &format!("connect as `{expected}`; `krilin db roles` makes it"));
    }
    if role == expected {
        Check::ok(name, format!("`{role}`, bound by row-level security"))
    } else {
        Check::warn(name, format!("`{role}` instead of `{expected}`"), "`krilin db roles` makes the roles we test with")
    }
}

fn naptime(server: &Server) -> Check {
    let seconds = server.autovacuum_naptime_s;
    let finding = format!("autovacuum looks every {seconds} s");
    if seconds <= NAPTIME_MAX_S {
        Check::ok("autovacuum", finding)
    } else {
        Check::warn("autovacuum", finding, "alter system set autovacuum_naptime = '5s'; select pg_reload_conf()")
    }
}

/// The database's clock was read between `before` and `after`.
fn clock(before: DateTime<Utc>, database: DateTime<Utc>, after: DateTime<Utc>) -> Check {
    let ahead = (database - after).num_milliseconds().max(0);
    let behind = (before - database).num_milliseconds().max(0);
    let (difference, direction) = if ahead > behind { (ahead, "ahead") } else { (behind, "behind") };
    if difference <= CLOCK_DIFFERENCE_MAX_MS {
        Check::ok("clock", "the database and this machine agree")
    } else {
        let finding = format!("the database is {difference} ms {direction}");
        Check::warn("clock", finding, "let both machines keep time by NTP (timedatectl set-ntp true)")
    }
}

async fn contents(connection: &mut PgConnection) -> Vec<Check> {
    let status = match schema::status(connection).await {
        Ok(status) => status,
        Err(error) => return vec![away("schema", &error)],
    };
    if let Err(mismatch) = schema::check(&status) {
        return vec![Check::fail("schema", mismatch.to_string(), "see `krilin db status`")];
    }
    let schema = Check::ok("schema", format!("version {}, which this krilin needs", schema::newest_known()));
    let mut checks = vec![schema, row_level_security(connection).await, leases(connection).await];
    checks.extend(super::server::checks(connection).await);
    checks
}

async fn row_level_security(connection: &mut PgConnection) -> Check {
    let name = "row-level security";
    match health::open_tables(connection).await {
        Ok(open) if open.is_empty() => Check::ok(name, "enabled and forced on every app's tables"),
        Ok(open) => Check::fail(
            name,
            format!("not enabled and forced on {}", open.join(", ")),
            "publish the app again, or: alter table … enable row level security, force row level security",
        ),
        Err(error) => away(name, &error),
    }
}

async fn leases(connection: &mut PgConnection) -> Check {
    match health::abandoned_leases(connection, ABANDONED_AFTER_S).await {
        Ok(0) => Check::ok("leases", "none is abandoned"),
        Ok(count) => Check::warn(
            "leases",
            format!("{count} ran out more than {ABANDONED_AFTER_S} s ago and nobody took them back"),
            "no worker is at work; start `krilin work`",
        ),
        Err(error) => away("leases", &error),
    }
}
