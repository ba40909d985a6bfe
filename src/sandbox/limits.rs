//! What a pass may use. Every number of the sandbox that a person may want to know has its name here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The most CPU time a pass may be given.
pub const CPU_MAX: Duration = Duration::from_secs(5);
/// The most wall time an action may be given, all its passes together.
pub const WALL_MAX: Duration = Duration::from_mins(5);
/// The largest JavaScript heap a pass may be given.
pub const MEMORY_MAX_BYTES: u64 = 256 << 20;
/// The JavaScript stack. Deeper recursion is a `RangeError` that the app can catch.
pub const STACK_BYTES: usize = 256 << 10;
/// The most calls a pass may make.
pub const CALLS: u32 = 1_000;
/// The largest input, result, and batch of calls (arguments together).
pub const FRAME_BYTES: usize = 1 << 20;
/// The largest answer to a batch of calls. Wider than [`FRAME_BYTES`]: a page of a thousand rows is a good answer.
pub const SETTLE_BYTES: usize = 4 << 20;
/// The most log lines of a pass; later ones are dropped, and the last one says so.
pub const LOG_LINES: usize = 100;
/// The most bytes of log of a pass, messages and fields together.
pub const LOG_BYTES: usize = 64 << 10;
/// How long after the end of its CPU time a child may take to say so before it is killed.
pub const KILL_GRACE: Duration = Duration::from_millis(50);
/// The largest bundle source.
pub const SOURCE_BYTES: usize = 1 << 20;
/// Address space of a child above what it has when it starts: the largest heap, frames, and room for fragmentation.
pub(super) const ADDRESS_SPACE_BYTES: u64 = MEMORY_MAX_BYTES + (128 << 20);
/// The region that the engine lives in: the largest heap, and as much again for blocks that wait for others of their size.
/// The kernel gives it memory where it is touched.
pub(super) const REGION_BYTES: usize = 512 << 20;
/// A child whose engine ever used more of its region than this is replaced, which gives the memory back.
pub(super) const SWOLLEN_BYTES: usize = 32 << 20;
/// The longest image of an app's evaluated module that is kept; a module that makes more is evaluated in each pass.
pub(super) const IMAGE_BYTES: usize = 2 << 20;
/// CPU time after which a child is stopped by the kernel, over all its passes. The parent recycles it long before.
pub(super) const CHILD_CPU_SECONDS: u64 = 600;
/// The most bytecode and images a child keeps. A child that has more is replaced.
pub(super) const CACHE_BYTES: usize = 16 << 20;
/// The longest report of a child: a full result or batch, a full log, and the words around them.
pub(super) const REPORT_BYTES: usize = FRAME_BYTES + LOG_BYTES + (64 << 10);
/// The longest order to a child: source, input and facts, or the answers to a batch.
pub(super) const ORDER_BYTES: usize = SETTLE_BYTES + (64 << 10);
/// The longest error message, stack or details that come back, each.
pub(super) const ERROR_TEXT_BYTES: usize = 8 << 10;

/// The limits of one pass. Values above the maxima are cut to them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// CPU time of the pass. Waiting for the host does not count.
    pub cpu: Duration,
    /// Wall time of the pass, host included. An action of several passes hands down what is left of its own.
    pub wall: Duration,
    /// JavaScript heap.
    pub memory_bytes: u64,
    /// Calls of the pass, at most [`CALLS`].
    pub calls: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpu: Duration::from_secs(1), wall: Duration::from_secs(30), memory_bytes: 64 << 20, calls: 200 }
    }
}

impl Limits {
    /// The same, no value above its maximum.
    #[must_use]
    pub fn capped(self) -> Self {
        Self {
            cpu: self.cpu.min(CPU_MAX),
            wall: self.wall.min(WALL_MAX),
            memory_bytes: self.memory_bytes.min(MEMORY_MAX_BYTES),
            calls: self.calls.min(CALLS),
        }
    }
}
