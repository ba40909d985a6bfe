//! Statements over `api_tokens`. The secret never comes here, only its hash.

use chrono::{DateTime, Utc};
use sqlx::{PgExecutor, Row, postgres::PgRow};

use super::{Error, within};
use crate::model::{
    id::{TokenId, UserId},
    token::{Scope, Scopes, SecretHash, Token},
};

/// The most tokens one listing returns.
pub const LIST_MAX: i64 = 1_000;

const COLUMNS: &str = "id, user_id, name, scopes, created_at, expires_at, revoked_at, last_used_at";

/// What a token is made of.
#[derive(Clone)]
pub struct NewToken<'a> {
    /// Its id, which is part of its text.
    pub id: TokenId,
    /// For whom it speaks.
    pub user_id: UserId,
    /// What its owner calls it.
    pub name: &'a str,
    /// The SHA-256 of its secret.
    pub secret_hash: SecretHash,
    /// What it may do; at least one.
    pub scopes: Scopes,
    /// From when on it is refused.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Stores a token. An unknown user is `Error::Constraint("api_tokens_user_id_fkey")`.
pub async fn insert(db: impl PgExecutor<'_>, token: NewToken<'_>) -> Result<Token, Error> {
    let scopes: Vec<&str> = token.scopes.iter().map(Scope::as_str).collect();
    let statement = sqlx::query(
        "insert into api_tokens (id, user_id, name, secret_hash, scopes, expires_at)
         values ($1, $2, $3, $4, $5, $6)
         returning id, user_id, name, scopes, created_at, expires_at, revoked_at, last_used_at",
    );
    let row = within(
        statement
            .bind(token.id)
            .bind(token.user_id)
            .bind(token.name)
            .bind(&token.secret_hash.0[..])
            .bind(scopes)
            .bind(token.expires_at)
            .fetch_one(db),
    )
    .await?;
    from_row(&row)
}

/// The token with this id and the hash its secret must have. The one statement of authentication.
pub async fn find(db: impl PgExecutor<'_>, id: TokenId) -> Result<(Token, SecretHash), Error> {
    let text = sqlx::AssertSqlSafe(format!("select {COLUMNS}, secret_hash from api_tokens where id = $1"));
    let row = within(sqlx::query(text).bind(id).fetch_one(db)).await?;
    let hash: [u8; 32] = row.try_get(8)?;
    Ok((from_row(&row)?, SecretHash(hash)))
}

/// The tokens of one user, or of all, newest first, at most [`LIST_MAX`].
pub async fn list(db: impl PgExecutor<'_>, user: Option<UserId>) -> Result<Vec<Token>, Error> {
    let text = sqlx::AssertSqlSafe(format!(
        "select {COLUMNS} from api_tokens where $1 is null or user_id = $1 order by id desc limit $2"
    ));
    within(sqlx::query(text).bind(user).bind(LIST_MAX).fetch_all(db)).await?.iter().map(from_row).collect()
}

/// Revokes a token for good; the answer is the token. One that was revoked before keeps its time.
pub async fn revoke(db: impl PgExecutor<'_>, id: TokenId) -> Result<Token, Error> {
    let text = sqlx::AssertSqlSafe(format!(
        "update api_tokens set revoked_at = coalesce(revoked_at, krilin.now()) where id = $1 returning {COLUMNS}"
    ));
    from_row(&within(sqlx::query(text).bind(id).fetch_one(db)).await?)
}

/// Notes that a token was used, unless that was noted within the last minute.
pub async fn touch(db: impl PgExecutor<'_>, id: TokenId) -> Result<(), Error> {
    let statement = sqlx::query(
        "update api_tokens
         set last_used_at = krilin.now()
         where id = $1 and (last_used_at is null or last_used_at <= krilin.now() - interval '1 minute')",
    );
    within(statement.bind(id).execute(db)).await?;
    Ok(())
}

fn from_row(row: &PgRow) -> Result<Token, Error> {
    let names: Vec<String> = row.try_get(3)?;
    // A scope that a newer version wrote and this one does not know allows nothing here.
    let scopes = names.iter().filter_map(|name| name.parse::<Scope>().ok()).collect();
    Ok(Token {
        id: row.try_get(0)?,
        user_id: row.try_get(1)?,
        name: row.try_get(2)?,
        scopes,
        created_at: row.try_get(4)?,
        expires_at: row.try_get(5)?,
        revoked_at: row.try_get(6)?,
        last_used_at: row.try_get(7)?,
    })
}
