//! App code in killable, locked-down child processes.
//!
//! [`Pool::run`] runs one pass of a handler in a JavaScript context that is as new and answers its calls through a
//! [`Host`](crate::model::host::Host). This module knows nothing of users' rows, of permissions or of Postgres, and it
//! never believes a child: user and app are the host's, and whatever a child says is checked and bounded.
//!
//! ```text
//! pool      lends a warm child, kills what does not answer, replaces what was killed
//! turn      the parent's half of one pass
//! protocol  frames between the two
//! child     the child's main loop        lockdown   what it gives up before it reads a byte
//! engine    one pass in QuickJS          parse      JSON into values of the engine
//! realm     where passes run             arena      its memory, which can be put back as it was
//! prelude.js, platform.js, time.js, web.js: what app code sees
//! ```

mod arena;
pub mod child;
mod engine;
mod error;
mod facts;
mod limits;
mod lockdown;
mod native;
mod parse;
mod pool;
mod protocol;
mod realm;
mod spawner;
mod tally;
mod thrown;
mod time;
mod turn;

pub use error::{Error, Position};
pub use facts::{Facts, JobFacts, UserFacts};
pub use limits::{
    CALLS, CPU_MAX, FRAME_BYTES, KILL_GRACE, LOG_BYTES, LOG_LINES, Limits, MEMORY_MAX_BYTES, SETTLE_BYTES,
    SOURCE_BYTES, STACK_BYTES, WALL_MAX,
};
pub use pool::{Pass, Pool, PoolOptions, Run};
pub use tally::Tally;
