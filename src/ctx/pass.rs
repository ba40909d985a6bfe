//! One pass: who it is for, and the one transaction in which everything it does happens.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate, Utc};
use chrono_tz::Tz;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{Running, refusal::over};
use crate::{
    apps::loaded::LoadedApp,
    model::{error::CtxError, id::UserId, user::WeekStart},
    store::Transaction,
};

/// The most rows that the queries of one pass give back together.
pub const ROWS_PER_PASS: usize = 10_000;

/// Who, which app, when. Fixed for the pass.
#[derive(Debug)]
pub struct World {
    /// On whose behalf.
    pub user: UserId,
    /// Which app, in which version.
    pub app: Arc<LoadedApp>,
    /// What the user granted.
    pub grants: Vec<String>,
    /// The job's instant.
    pub now: DateTime<Utc>,
    /// The user's zone.
    pub zone: Tz,
    /// The day on which the user's week begins.
    pub week_start: WeekStart,
    /// Whether writing is refused, because nothing that happens here is kept.
    pub read_only: bool,
    /// The most calls.
    pub calls_max: u32,
    /// The job; none where none runs.
    pub running: Option<Running>,
}

impl World {
    /// The job's day where the user is.
    pub fn today(&self) -> NaiveDate {
        self.now.with_timezone(&self.zone).date_naive()
    }
}

/// The open transaction and what has been used of the pass.
#[derive(Debug)]
pub struct Pass {
    /// Where everything happens.
    pub transaction: Transaction,
    /// Calls so far.
    pub calls: u32,
    /// Rows given back so far.
    pub rows: usize,
    /// Tables whose rows are counted before an insert.
    pub near_limit: Vec<String>,
    /// Why the transaction can no longer be used.
    pub broken: Option<CtxError>,
    /// Where ids come from.
    pub chance: Chance,
}

impl Pass {
    /// Adds `rows` to those given back.
    pub fn count_rows(&mut self, rows: usize) -> Result<(), CtxError> {
        self.rows += rows;
        if self.rows > ROWS_PER_PASS {
            return Err(over(format!("the queries of one pass may give back {ROWS_PER_PASS} rows together, not more")));
        }
        Ok(())
    }
}

/// Chance that is the same for the same job, so that a replay writes the same ids.
#[derive(Debug, Clone)]
pub struct Chance {
    seed: u64,
    drawn: u64,
}

impl Chance {
    /// Chance from a job's seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, drawn: 0 }
    }

    fn draw(&mut self) -> [u8; 32] {
        self.drawn += 1;
        let mut hash = Sha256::new();
        // Not the sandbox's own sequence: `ctx.generate_id` must never meet an id made here.
        hash.update(b"krilin.storage");
        hash.update(self.seed.to_le_bytes());
        hash.update(self.drawn.to_le_bytes());
        hash.finalize().into()
    }

    /// A UUIDv7 (RFC 9562) of this instant. A job has one instant, so a counter follows it (method 1 of section 6.2): rows
    /// stand in the order in which they were written.
    pub fn id(&mut self, now: DateTime<Utc>) -> Uuid {
        let random = half(self.draw());
        let millis = u64::try_from(now.timestamp_millis()).unwrap_or(0);
        // 26 bits: the upper four of the first byte are the version's, the upper two of the third the variant's.
        let counter = |shift: u32, mask: u64| u8::try_from((self.drawn >> shift) & mask).unwrap_or(0);
        let counter = [counter(22, 0x0f), counter(14, 0xff), counter(8, 0x3f), counter(0, 0xff)];
        let bytes = std::array::from_fn(|index| counter.get(index).copied().unwrap_or(random[index]));
        uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    }

    /// True with a probability of `share` of `of`.
    pub fn happens(&mut self, share: u64, of: u64) -> bool {
        let bytes = self.draw();
        let number = u128::from_le_bytes(half(bytes)) % u128::from(of.max(1));
        number < u128::from(share)
    }
}

/// The first sixteen of thirty-two bytes.
fn half(bytes: [u8; 32]) -> [u8; 16] {
    std::array::from_fn(|index| bytes[index])
}
