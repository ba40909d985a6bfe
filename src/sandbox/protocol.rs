//! Frames between parent and child: a length (4 bytes, little endian), a kind (1 byte), JSON.
//!
//! Orders go down, reports come up, strictly in turns. Results of calls pass through as JSON text that nobody parses on
//! the way. A frame that is too long, of an unknown kind or not JSON is a fault of the child, never of the parent.

use std::{borrow::Cow, io};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::Position;
use crate::model::{
    error::{Again, Code, CtxError},
    host::LogLine,
};

/// Length and kind.
pub(super) const HEAD_BYTES: usize = 5;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    /// Order: [`RunOrder`].
    Run = b'r',
    /// Order: an array of [`Answer`]s, in the order of the calls.
    Settle = b's',
    /// Report: the child is locked down and warm. Payload: `null`.
    Ready = b'h',
    /// Report: [`OpsReport`]; the handler waits for these calls.
    Ops = b'o',
    /// Report: [`DoneReport`].
    Done = b'd',
    /// Report: [`ThrewReport`].
    Threw = b't',
}

impl Kind {
    fn of(byte: u8) -> Option<Self> {
        [Self::Run, Self::Settle, Self::Ready, Self::Ops, Self::Done, Self::Threw]
            .into_iter()
            .find(|k| *k as u8 == byte)
    }
}

/// One pass.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct RunOrder<'a> {
    /// The bundle's hash: the key of the child's bytecode cache.
    pub hash: &'a str,
    /// The file name in stacks.
    pub name: &'a str,
    /// The source, when the parent has not sent it to this child before.
    pub source: Option<Cow<'a, str>>,
    /// The export to call; none to list the exports.
    pub entry: Option<&'a str>,
    /// The handler's second argument.
    #[serde(borrow)]
    pub input: &'a RawValue,
    /// [`super::Facts`].
    #[serde(borrow)]
    pub facts: &'a RawValue,
    /// Where randomness begins.
    pub seed: u64,
    /// The job's instant, milliseconds since 1970.
    pub now_ms: i64,
    /// CPU time, microseconds.
    pub cpu_us: u64,
    /// Heap, bytes.
    pub memory_bytes: u64,
    /// Calls.
    pub calls: u32,
    /// Whether to count the heap at the end.
    #[serde(default)]
    pub weigh: bool,
}

/// The answer to one call.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer<'a> {
    /// The result.
    Ok(&'a RawValue),
    /// The error.
    Err(Refusal<'a>),
}

/// An error of the host, as the prelude makes a `KrilinError` of it.
#[derive(Debug, Serialize)]
pub(super) struct Refusal<'a> {
    code: Code,
    message: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<&'a serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_ms: Option<u64>,
    retryable: bool,
}

impl<'a> From<&'a CtxError> for Refusal<'a> {
    fn from(error: &'a CtxError) -> Self {
        Self {
            code: error.code,
            message: &error.message,
            details: error.details.as_ref(),
            retry_after_ms: error.retry_after_ms,
            retryable: error.code.again() != Again::Never,
        }
    }
}

/// Calls that are pending now that nothing else can run.
#[derive(Debug, Deserialize)]
pub(super) struct OpsReport<'a> {
    /// Lines since the last report.
    #[serde(default)]
    pub log: Vec<LogLine>,
    /// The calls.
    #[serde(borrow)]
    pub calls: Vec<OpsCall<'a>>,
    /// CPU time of the pass until now, microseconds.
    pub cpu_us: u64,
}

/// A call as the child wrote it. The arguments are parsed one call at a time, so that one bad call is one error.
#[derive(Debug, Deserialize)]
pub(super) struct OpsCall<'a> {
    pub api: &'a str,
    pub method: &'a str,
    #[serde(borrow)]
    pub args: &'a RawValue,
}

/// The handler returned.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct DoneReport<'a> {
    /// Lines since the last report.
    #[serde(default)]
    pub log: Vec<LogLine>,
    /// What it returned.
    #[serde(borrow)]
    pub value: &'a RawValue,
    /// CPU time of the pass, microseconds.
    pub cpu_us: u64,
    /// The part of it that made the context as new, microseconds.
    pub prepared_us: u64,
    /// JavaScript heap in use at the end, bytes, when it was asked for.
    pub memory_bytes: Option<u64>,
    /// Whether this child wants to be replaced: its bytecode cache is full.
    #[serde(default)]
    pub full: bool,
}

/// The handler threw, did not compile, or met a limit.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct ThrewReport {
    /// Lines since the last report.
    #[serde(default)]
    pub log: Vec<LogLine>,
    /// Why.
    pub code: Code,
    /// In words.
    pub message: String,
    /// For programs.
    #[serde(default)]
    pub details: Option<serde_json::Value>,
    /// How long to wait before another try, when the host said so.
    #[serde(default)]
    pub retry_after_ms: Option<u64>,
    /// Where.
    #[serde(default)]
    pub at: Option<Position>,
    /// The author's frames.
    #[serde(default)]
    pub stack: String,
    /// CPU time of the pass, microseconds.
    #[serde(default)]
    pub cpu_us: u64,
}

/// Starts a frame in `out`, which is emptied. The payload is appended by the caller, then [`finish`] writes the length.
pub(super) fn begin(out: &mut Vec<u8>, kind: Kind) {
    out.clear();
    out.extend_from_slice(&[0, 0, 0, 0, kind as u8]);
}

/// Writes the length of the frame that [`begin`] began.
pub(super) fn finish(out: &mut [u8]) {
    let length = u32::try_from(out.len() - HEAD_BYTES).expect("frames are far below 4 GiB");
    out[..4].copy_from_slice(&length.to_le_bytes());
}

/// Reads a frame's head: its kind and the length of its payload, at most `most`.
pub(super) fn head(bytes: [u8; HEAD_BYTES], most: usize) -> io::Result<(Kind, usize)> {
    let [a, b, c, d, kind] = bytes;
    let length = u32::from_le_bytes([a, b, c, d]) as usize;
    let kind = Kind::of(kind).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "unknown kind of frame"))?;
    if length > most {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("frame of {length} bytes, the most is {most}")));
    }
    Ok((kind, length))
}
