//! The statement that says what bears on a job's start. Refuses to judge: that is the model's.

use std::time::Duration;

use sqlx::{PgExecutor, types::Json};

use super::{Error, within};
use crate::model::{
    id::{JobId, UserId},
    why::Facts,
};

/// What is known of the live job `id`; only if it is `user_id`'s, where one is given. Counts jobs before it up to `count_max`;
/// workers that were silent for `silent` are not there.
pub async fn facts(
    db: impl PgExecutor<'_>,
    id: JobId,
    user_id: Option<UserId>,
    count_max: i64,
    silent: Duration,
) -> Result<Option<Facts>, Error> {
    let statement = sqlx::query_scalar(include_str!("sql/why.sql"));
    let statement = statement.bind(id).bind(user_id).bind(count_max).bind(silent.as_secs_f64());
    Ok(within(statement.fetch_optional(db)).await?.map(|Json(facts)| facts))
}
