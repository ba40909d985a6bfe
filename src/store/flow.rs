//! Statements over what is set for queues: pauses, limits, rates, shares. Refuses to judge them: the model has checked what
//! is set, and the claim obeys it.

use std::{collections::BTreeMap, time::Duration};

use chrono::{DateTime, Utc};
use sqlx::{
    PgConnection, PgExecutor, Row,
    postgres::{PgRow, types::PgInterval},
};

use super::{Error, within};
use crate::model::{
    duration::HumanDuration,
    flow::{Change, Limits, Pause, Rate, Settings, Share},
    id::UserId,
};

/// What is set for `name`, or for every queue for which something is; in the order of their names. Users and keys are not
/// read: see [`parts`].
pub async fn settings(db: impl PgExecutor<'_>, name: Option<&str>) -> Result<Vec<Settings>, Error> {
    let statement = sqlx::query("select * from krilin.queues where $1::text is null or name = $1 order by name");
    within(statement.bind(name).fetch_all(db)).await?.iter().map(read).collect()
}

/// Makes sure that there is a row for `name`, locks it until the transaction ends, and gives it.
pub async fn hold(db: &mut PgConnection, name: &str, by: &str) -> Result<Settings, Error> {
    let insert = sqlx::query(
        "insert into krilin.queues (name, updated_at, updated_by) values ($1, krilin.now(), $2) on conflict do nothing",
    );
    within(insert.bind(name).bind(by).execute(&mut *db)).await?;
    let select = sqlx::query("select * from krilin.queues where name = $1 for update");
    read(&within(select.bind(name).fetch_one(db)).await?)
}

/// Sets everything of one queue but its users and keys. `pause` is what becomes of the pause: true with a reason, false,
/// or nothing.
pub async fn write(
    db: &mut PgConnection,
    name: &str,
    limits: &Limits,
    (pause, reason): (Option<bool>, Option<&str>),
    by: &str,
) -> Result<(), Error> {
    let units = |rate: Option<Rate>| rate.map(|rate| i64::from(rate.units));
    let period = |rate: Option<Rate>| rate.map(|rate| interval(rate.period.0));
    let limit = |limit: Option<u32>| limit.and_then(|limit| i32::try_from(limit).ok());
    let statement = sqlx::query(
        "update krilin.queues set
             max_running = $2, max_running_per_user = $3, max_running_per_key = $4,
             rate_units = $5, rate_period = $6, rate_exact = $7,
             user_rate_units = $8, user_rate_period = $9, key_rate_units = $10, key_rate_period = $11,
             paused_at = case when $12 then coalesce(paused_at, krilin.now()) when $12 is null then paused_at end,
             paused_by = case when $12 then $14 when $12 is null then paused_by end,
             paused_reason = case when $12 then $13 when $12 is null then paused_reason end,
             updated_at = krilin.now(), updated_by = $14
         where name = $1",
    );
    let statement = statement
        .bind(name)
        .bind(limit(limits.max_running))
        .bind(limit(limits.max_running_per_user))
        .bind(limit(limits.max_running_per_key))
        .bind(units(limits.rate))
        .bind(period(limits.rate))
        .bind(limits.rate.is_none_or(|rate| rate.exact))
        .bind(units(limits.rate_per_user))
        .bind(period(limits.rate_per_user))
        .bind(units(limits.rate_per_key))
        .bind(period(limits.rate_per_key))
        .bind(pause)
        .bind(reason)
        .bind(by);
    within(statement.execute(db)).await?;
    Ok(())
}

/// Sets and takes back the shares of users and the limits of keys that `change` names. A user who is not there is
/// `Error::Constraint("queue_users_user_id_fkey")`.
pub async fn write_parts(db: &mut PgConnection, queue: &str, change: &Change) -> Result<(), Error> {
    let limit = |limit: u32| i32::try_from(limit).unwrap_or(i32::MAX);
    let statement = sqlx::query(
        "with input as materialized (
             select * from unnest($2::uuid[], $3::integer[], $4::integer[]) as i(user_id, weight, max_running)
         ),
         gone as (
             delete from krilin.queue_users u using input i
             where u.queue = $1 and u.user_id = i.user_id and i.weight is null
         )
         insert into krilin.queue_users (queue, user_id, weight, max_running)
         select $1, user_id, weight, max_running from input where weight is not null
         on conflict (queue, user_id) do update set weight = excluded.weight, max_running = excluded.max_running",
    );
    let shares = || change.users.values();
    let statement = statement
        .bind(queue)
        .bind(change.users.keys().copied().collect::<Vec<_>>())
        .bind(shares().map(|share| share.map(|share| limit(share.weight))).collect::<Vec<_>>())
        .bind(shares().map(|share| share.and_then(|share| share.max_running).map(limit)).collect::<Vec<_>>());
    within(statement.execute(&mut *db)).await?;
    let statement = sqlx::query(
        "with input as materialized (select * from unnest($2::text[], $3::integer[]) as i(key, max_running)),
         gone as (
             delete from krilin.queue_keys k using input i
             where k.queue = $1 and k.key = i.key and i.max_running is null
         )
         insert into krilin.queue_keys (queue, key, max_running)
         select $1, key, max_running from input where max_running is not null
         on conflict (queue, key) do update set max_running = excluded.max_running",
    );
    let statement = statement
        .bind(queue)
        .bind(change.keys.keys().map(String::as_str).collect::<Vec<_>>())
        .bind(change.keys.values().map(|value| value.map(limit)).collect::<Vec<_>>());
    within(statement.execute(db)).await?;
    Ok(())
}

/// The shares and limits of single users and keys of `queue`, or of all: at most `limit` of each, with their queue.
pub async fn parts(db: &mut PgConnection, queue: Option<&str>, limit: i64) -> Result<(Shares, Keys), Error> {
    let users = sqlx::query_as::<_, (String, UserId, i32, Option<i32>)>(
        "select queue, user_id, weight, max_running from krilin.queue_users
         where $1::text is null or queue = $1 order by queue, user_id limit $2",
    );
    let users = within(users.bind(queue).bind(limit).fetch_all(&mut *db)).await?;
    let keys = sqlx::query_as::<_, (String, String, i32)>(
        "select queue, key, max_running from krilin.queue_keys
         where $1::text is null or queue = $1 order by queue, key limit $2",
    );
    let keys = within(keys.bind(queue).bind(limit).fetch_all(db)).await?;
    let (mut shares, mut limits) = (Shares::new(), Keys::new());
    for (queue, user, weight, max_running) in users {
        let share = Share { weight: count(weight), max_running: max_running.map(count) };
        shares.entry(queue).or_default().insert(user, share);
    }
    for (queue, key, max_running) in keys {
        limits.entry(queue).or_default().insert(key, count(max_running));
    }
    Ok((shares, limits))
}

/// Forgets units that no window of their rate reaches any more, at most `limit` rows; gives how many. A subject that starts
/// again and again sees to its own (`krilin.spend`): this is for those who never come back, and for rates that were lifted.
pub async fn prune_spent(db: impl PgExecutor<'_>, limit: i64) -> Result<u64, Error> {
    let statement = sqlx::query(
        "delete from krilin.rate_spent where ctid = any (array(
             select s.ctid from krilin.rate_spent s left join krilin.queues q on q.name = s.queue
             where s.at <= krilin.now() - coalesce(krilin.window_of(q, s.subject), interval '0') limit $1))",
    );
    Ok(within(statement.bind(limit).execute(db)).await?.rows_affected())
}

/// Shares of users, by queue.
pub type Shares = BTreeMap<String, BTreeMap<UserId, Share>>;
/// Limits of keys, by queue.
pub type Keys = BTreeMap<String, BTreeMap<String, u32>>;

fn count(n: i32) -> u32 {
    u32::try_from(n).unwrap_or(0)
}

fn interval(duration: Duration) -> PgInterval {
    PgInterval { months: 0, days: 0, microseconds: i64::try_from(duration.as_micros()).unwrap_or(i64::MAX) }
}

fn read(row: &PgRow) -> Result<Settings, Error> {
    let limit = |name: &str| Ok::<_, sqlx::Error>(row.try_get::<Option<i32>, _>(name)?.map(count));
    let rate = |units: &str, period: &str, exact: bool| {
        let units = row.try_get::<Option<i64>, _>(units)?.and_then(|units| u32::try_from(units).ok());
        let period = row.try_get::<Option<PgInterval>, _>(period)?;
        Ok::<_, sqlx::Error>(units.zip(period).map(|(units, period)| {
            let micros = u64::try_from(period.microseconds).unwrap_or(0);
            Rate { units, period: HumanDuration(Duration::from_micros(micros)), exact }
        }))
    };
    let paused_at: Option<DateTime<Utc>> = row.try_get("paused_at")?;
    let paused_by: Option<String> = row.try_get("paused_by")?;
    let reason = row.try_get("paused_reason")?;
    Ok(Settings {
        name: row.try_get("name")?,
        paused: paused_at.zip(paused_by).map(|(at, by)| Pause { at, by, reason }),
        limits: Limits {
            max_running: limit("max_running")?,
            max_running_per_user: limit("max_running_per_user")?,
            max_running_per_key: limit("max_running_per_key")?,
            rate: rate("rate_units", "rate_period", row.try_get("rate_exact")?)?,
            rate_per_user: rate("user_rate_units", "user_rate_period", true)?,
            rate_per_key: rate("key_rate_units", "key_rate_period", true)?,
        },
        users: BTreeMap::new(),
        keys: BTreeMap::new(),
        updated_at: row.try_get("updated_at")?,
        updated_by: row.try_get("updated_by")?,
    })
}
