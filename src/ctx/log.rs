//! `ctx.log`: kept in order, within limits, until the pass ends. The sandbox limits it too; agents have no sandbox.

use std::sync::{Mutex, PoisonError};

use crate::model::host::LogLine;

/// The most lines of one pass.
pub(super) const LINES_MAX: usize = 100;
/// The most bytes of one pass, messages and fields together.
pub(super) const BYTES_MAX: usize = 64 << 10;

/// The lines so far.
#[derive(Debug, Default)]
pub(super) struct Lines(Mutex<(Vec<LogLine>, usize)>);

impl Lines {
    /// Keeps a line if there is room for it.
    pub(super) fn add(&self, line: LogLine) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = line.message.len() + line.fields.to_string().len();
        if kept.0.len() < LINES_MAX && kept.1 + bytes <= BYTES_MAX {
            kept.1 += bytes;
            kept.0.push(line);
        }
    }

    /// The lines kept; none are left.
    pub(super) fn take(&self) -> Vec<LogLine> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner).0)
    }
}
