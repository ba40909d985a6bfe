//! Statements over `users`. Refuses nothing itself: what arrives was parsed by the model.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, Row, postgres::PgRow};

use super::{Error, within};
use crate::model::{
    id::UserId,
    user::{NewUser, User},
};

/// The most users one listing returns.
pub const LIST_MAX: i64 = 1_000;

const COLUMNS: &str = "id, name, email, timezone, locale, week_start, created_at";

/// Adds a user under `id`. An address that another user has is `Error::Constraint("users_email_key")`.
pub async fn insert(db: impl PgExecutor<'_>, id: UserId, user: &NewUser) -> Result<User, Error> {
    let statement = sqlx::query(
        "insert into users (id, name, email, timezone, locale, week_start)
         values ($1, $2, $3, $4, $5, $6)
         returning id, name, email, timezone, locale, week_start, created_at",
    );
    let row = within(
        statement
            .bind(id)
            .bind(user.name())
            .bind(user.email())
            .bind(user.timezone().name())
            .bind(&user.locale)
            .bind(user.week_start.as_str())
            .fetch_one(db),
    )
    .await?;
    from_row(&row)
}

/// The user with this id.
pub async fn find(db: impl PgExecutor<'_>, id: UserId) -> Result<User, Error> {
    let text = sqlx::AssertSqlSafe(format!("select {COLUMNS} from users where id = $1"));
    from_row(&within(sqlx::query(text).bind(id).fetch_one(db)).await?)
}

/// The users whose name, address or id is `text`: what a person types to say whom they mean. More than one may share a
/// name; at most two come back, which is enough to know that `text` is ambiguous.
pub async fn search(db: impl PgExecutor<'_>, text: &str) -> Result<Vec<User>, Error> {
    let statement = sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from users where name = $1 or email = lower($1) or id::text = lower($1) order by id limit 2"
    ));
    within(sqlx::query(statement).bind(text).fetch_all(db)).await?.iter().map(from_row).collect()
}

/// All users, oldest first, at most [`LIST_MAX`].
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<User>, Error> {
    let statement = sqlx::AssertSqlSafe(format!("select {COLUMNS} from users order by id limit $1"));
    within(sqlx::query(statement).bind(LIST_MAX).fetch_all(db)).await?.iter().map(from_row).collect()
}

fn from_row(row: &PgRow) -> Result<User, Error> {
    Ok(User {
        id: row.try_get(0)?,
        name: row.try_get(1)?,
        email: row.try_get(2)?,
        timezone: parsed(row, 3)?,
        locale: row.try_get(4)?,
        week_start: parsed(row, 5)?,
        created_at: row.try_get::<DateTime<Utc>, _>(6)?,
    })
}

/// Reads a text column as the type whose text it is.
fn parsed<T>(row: &PgRow, index: usize) -> Result<T, Error>
where
    T: std::str::FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: &str = row.try_get(index)?;
    text.parse().map_err(|cause| Error::Database(sqlx::Error::Decode(Box::new(cause))))
}
