//! Every number that bounds a request, and the burst limiter per token.

use std::{num::NonZeroU32, time::Duration};

use governor::{
    Quota, RateLimiter,
    clock::{Clock, MonotonicClock},
    middleware::StateInformationMiddleware,
    state::keyed::DashMapStateStore,
};

use super::error::{Kind, Problem};
use crate::model::{error::Code, id::TokenId};

/// The largest body, in bytes.
pub const BODY_MAX: usize = 1024 * 1024;
/// How much of a body over the limit is still read, in bytes, so that the client gets to read our answer.
pub const BODY_DRAIN_MAX: usize = 8 * 1024 * 1024;
/// The longest a body may take to arrive.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest the head of a request may take to arrive; also how long an idle connection is kept.
pub const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The largest head of a request, in bytes.
pub const HEAD_MAX: usize = 32 * 1024;
/// The most header fields in one request.
pub const HEADERS_MAX: usize = 64;
/// The most connections at a time; more wait in the listener's queue.
pub const CONNECTIONS_MAX: usize = 2_048;
/// The most requests that are being answered at a time.
pub const IN_FLIGHT_MAX: usize = 1_024;
/// When a request that was one too many may come again.
pub const OVERLOADED_RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest `Prefer: wait` that is honoured; a longer one is cut to this.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// The longest any request may take: the longest wait, and time for the rest.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(40);
/// How long a stopping server waits for the requests it is answering.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a stopping server waits for the first request of a connection that it had accepted already.
pub const FIRST_REQUEST_WAIT: Duration = Duration::from_secs(1);
/// The most queries that run at a time: fewer than the connections of a server, so that they starve nothing else.
pub const QUERIES_MAX: usize = 8;
/// The longest a query waits for its place.
pub const QUERY_WAIT: Duration = Duration::from_secs(10);
/// The longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_MAX: usize = 255;
/// The most jobs in one batch.
pub const BATCH_MAX: usize = 1_000;
/// The most lines of one body of lines.
pub const LINES_MAX: usize = 50_000;
/// The longest line, in bytes: the largest arguments, and the rest.
pub const LINE_MAX: usize = 320 * 1024;
/// The most lines that are committed together.
pub const CHUNK_LINES: usize = 500;
/// How many bytes of lines are kept before they are committed.
pub const CHUNK_BYTES: usize = 1024 * 1024;
/// The longest a body of lines may take to arrive, as a whole.
pub const LINES_TIMEOUT: Duration = Duration::from_mins(5);
/// The most bodies of lines that are being read at a time.
pub const LINE_READERS_MAX: usize = 8;
/// The most entries on one page of a list.
pub const PAGE_MAX: u32 = 100;
/// The entries on a page whose size was not asked for.
pub const PAGE_DEFAULT: u32 = 50;

/// How many requests one token may make per second, in the long run.
pub const TOKEN_RATE: NonZeroU32 = NonZeroU32::new(200).expect("200 is not zero");
/// How many requests one token may make at once, on top of its rate.
pub const TOKEN_BURST: NonZeroU32 = NonZeroU32::new(400).expect("400 is not zero");
/// At how many remembered tokens the limiter forgets those it no longer needs.
const TOKENS_REMEMBERED: usize = 10_000;

/// The limiter of requests per token (GCRA, by `governor`).
pub struct Burst {
    limiter: RateLimiter<TokenId, DashMapStateStore<TokenId>, MonotonicClock, StateInformationMiddleware>,
}

impl Burst {
    /// A limiter that allows `rate` requests per second and token, and `burst` at once.
    pub fn new(rate: NonZeroU32, burst: NonZeroU32) -> Self {
        let quota = Quota::per_second(rate).allow_burst(burst);
        Self { limiter: RateLimiter::dashmap_with_clock(quota, MonotonicClock).with_middleware() }
    }

    /// Counts a request of this token and says how many more it may make at once; or when it may come again.
    pub fn check(&self, token: TokenId) -> Result<u32, Problem> {
        if self.limiter.len() > TOKENS_REMEMBERED {
            self.limiter.retain_recent();
        }
        let counted = self.limiter.check_key(&token).map(|after| after.remaining_burst_capacity());
        counted.map_err(|not_until| {
            let wait = not_until.wait_time_from(MonotonicClock.now());
            Problem::new(Kind::Code(Code::RateLimited), "this token makes too many requests; slow down")
                .with_retry_after(wait)
        })
    }
}
