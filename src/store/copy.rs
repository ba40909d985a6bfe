//! Many new jobs in one `copy`. Refuses what an insert would: a row that does not fit undoes all.

use std::borrow::Borrow;

use chrono::{DateTime, TimeDelta, Utc};
use sqlx::{
    Encode, PgConnection, Postgres,
    encode::IsNull,
    postgres::{PgArgumentBuffer, PgCopyIn},
};

use super::{Error, enqueue::NewRow, within};
use crate::model::id::AppId;

/// What opens the data (PostgreSQL manual, COPY, "Binary Format"): the signature, no flags, no extension.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
/// How many columns `copy.sql` names.
const COLUMNS: i16 = 17;
/// Where a row would begin, this says that there is none.
const END: i16 = -1;
/// The version of jsonb's binary form, before its text.
const JSONB_VERSION: u8 = 1;
/// Bytes that are sent at once; so Postgres reads while we write.
const CHUNK: usize = 64 * 1024;

/// Why the rows stopped coming, where they did.
type Stopped<E> = Result<(), E>;

/// Inserts `rows`, all or none. None of them may have a key or be tied. They are asked for while Postgres takes in those before
/// them; when one of them is an error, nothing was done, and that is what comes back.
pub async fn copy<R: Borrow<NewRow>, E>(
    db: &mut PgConnection,
    rows: impl Iterator<Item = Result<R, E>>,
) -> Result<Stopped<E>, Error> {
    let now = within(sqlx::query_scalar("select krilin.now()").fetch_one(&mut *db)).await?;
    within(send(db, rows, now)).await
}

async fn send<R: Borrow<NewRow>, E>(
    db: &mut PgConnection,
    rows: impl Iterator<Item = Result<R, E>>,
    now: DateTime<Utc>,
) -> Result<Stopped<E>, sqlx::Error> {
    let mut copy: PgCopyIn<_> = db.copy_in_raw(include_str!("sql/copy.sql")).await?;
    let mut data = Data::default();
    data.0.extend(HEADER);
    for row in rows {
        let row = match row {
            Ok(row) => row,
            Err(error) => {
                copy.abort("a row is missing").await?;
                return Ok(Err(error));
            }
        };
        data.row(row.borrow(), now)?;
        if data.0.len() >= CHUNK {
            copy.send(&data.0[..]).await?;
            data.0.clear();
            // A socket that has room waits for nothing, and whoever else runs on this thread would wait for all the rows.
            tokio::task::yield_now().await;
        }
    }
    data.0.extend(END.to_be_bytes());
    copy.send(&data.0[..]).await?;
    copy.finish().await?;
    Ok(Ok(()))
}

/// What was not sent yet.
#[derive(Default)]
struct Data(PgArgumentBuffer);

impl Data {
    fn row(&mut self, row: &NewRow, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
        let delayed = |delay| TimeDelta::from_std(delay).ok().and_then(|delay| now.checked_add_signed(delay));
        let due = row.run_at.or_else(|| row.delay.map(|delay| delayed(delay).unwrap_or(DateTime::<Utc>::MAX_UTC)));
        let state = if due > Some(now) { "scheduled" } else { "ready" };
        self.0.extend(COLUMNS.to_be_bytes());
        self.field(row.id)?;
        self.field(row.user_id)?;
        self.field(row.app_id.as_ref().map(AppId::as_str))?;
        self.field(row.kind.as_str())?;
        self.field(row.queue.as_str())?;
        self.field(Jsonb(&row.args))?;
        self.field(state)?;
        self.field(row.priority)?;
        self.field(row.max_attempts)?;
        self.field(due.unwrap_or(now))?;
        self.field(due)?;
        self.field(row.cause.as_deref())?;
        self.field(row.trace_parent.as_deref())?;
        self.field(row.awaited)?;
        self.field(row.concurrency_key.as_deref())?;
        self.field(row.cost)?;
        self.field(now)
    }

    /// Its length in bytes, or -1 for null, and the value as it would be bound.
    fn field<'q>(&mut self, value: impl Encode<'q, Postgres>) -> Result<(), sqlx::Error> {
        let start = self.0.len();
        self.0.extend((-1_i32).to_be_bytes());
        if let IsNull::No = value.encode(&mut self.0).map_err(sqlx::Error::Encode)? {
            let begin = start + size_of::<i32>();
            let length = i32::try_from(self.0.len() - begin).map_err(|cause| sqlx::Error::Encode(cause.into()))?;
            self.0[start..begin].copy_from_slice(&length.to_be_bytes());
        }
        Ok(())
    }
}

/// JSON that is text already.
struct Jsonb<'t>(&'t str);

impl Encode<'_, Postgres> for Jsonb<'_> {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, sqlx::error::BoxDynError> {
        buffer.push(JSONB_VERSION);
        buffer.extend(self.0.as_bytes());
        Ok(IsNull::No)
    }
}
