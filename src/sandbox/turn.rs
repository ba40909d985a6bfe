//! The parent's half of one pass: orders down, reports up, a clock beside them.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, PipeReader, PipeWriter},
    os::unix::fs::FileExt,
    sync::Arc,
    time::Duration,
};

use serde_json::value::RawValue;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
    time::{Instant, timeout_at},
};

use super::{
    error::Error,
    limits::{FRAME_BYTES, KILL_GRACE, REPORT_BYTES, SETTLE_BYTES},
    native::cpu_words,
    pool::{Pass, Run},
    protocol::{self, Answer, DoneReport, HEAD_BYTES, Kind, OpsReport, Refusal, RunOrder, ThrewReport},
};
use crate::model::{
    error::{Code, CtxError},
    host::{Call, Host, LogLine, Settled},
};

/// The least time between two looks at a child that is late by the wall but not by its CPU clock: the machine is busy.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The parent's ends of the pipes to a child.
pub(super) struct Line {
    orders: pipe::Sender,
    reports: pipe::Receiver,
    meter: Meter,
    known: HashSet<String>,
    frame: Vec<u8>,
    /// Bytes received; `[..used]` is the payload of the last report.
    buffer: Vec<u8>,
    filled: usize,
    payload: std::ops::Range<usize>,
    /// Whether the child's bytecode cache is full.
    pub(super) full: bool,
}

impl Line {
    /// Must be called within a tokio runtime.
    pub(super) fn new(orders: PipeWriter, reports: PipeReader, pid: u32) -> io::Result<Self> {
        Ok(Self {
            orders: pipe::Sender::from_owned_fd(orders.into())?,
            reports: pipe::Receiver::from_owned_fd(reports.into())?,
            meter: Meter::of(pid),
            known: HashSet::new(),
            frame: Vec::new(),
            buffer: vec![0; 16 << 10],
            filled: 0,
            payload: 0..0,
            full: false,
        })
    }

    /// Whether the child, which has nothing to say between passes, is still there and silent.
    pub(super) fn alive(&self) -> bool {
        matches!(self.reports.try_read(&mut [0; 1]), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    async fn send(&mut self) -> io::Result<()> {
        protocol::finish(&mut self.frame);
        self.orders.write_all(&self.frame).await
    }

    /// Receives the next report into [`Self::payload`].
    pub(super) async fn receive(&mut self) -> io::Result<Kind> {
        // Turns alternate, so a report begins where the buffer begins.
        self.filled = 0;
        let mut most = None;
        loop {
            let read = self.reports.read(&mut self.buffer[self.filled..]).await?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.filled += read;
            if most.is_none() && self.filled >= HEAD_BYTES {
                let bytes = self.buffer[..HEAD_BYTES].try_into().expect("as long as a head");
                let (kind, length) = protocol::head(bytes, REPORT_BYTES)?;
                self.buffer.resize(self.buffer.len().max(HEAD_BYTES + length), 0);
                most = Some((kind, HEAD_BYTES + length));
            }
            match most {
                Some((kind, end)) if self.filled == end => {
                    self.payload = HEAD_BYTES..end;
                    return Ok(kind);
                }
                Some((_, end)) if self.filled > end => return Err(garbage("more than one report")),
                _ => {}
            }
        }
    }

    fn parse<'a, T: serde::Deserialize<'a>>(&'a self) -> io::Result<T> {
        serde_json::from_slice(&self.buffer[self.payload.clone()]).map_err(|error| garbage(&error.to_string()))
    }
}

/// Reads the CPU time of a child from the kernel's scheduler. The child has no part in it.
#[derive(Clone)]
struct Meter(Option<Arc<File>>);

impl Meter {
    fn of(pid: u32) -> Self {
        Self(File::open(format!("/proc/{pid}/schedstat")).ok().map(Arc::new))
    }

    /// CPU time since the child started; none where the kernel does not tell.
    fn read(&self) -> Option<Duration> {
        let mut text = [0; 64];
        let length = self.0.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..length]).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    }
}

fn garbage(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// One pass to be driven. `entry` is none when only the names of the exports are wanted.
pub(super) struct Turn<'a> {
    pub(super) run: Run<'a>,
    pub(super) entry: Option<&'a str>,
    pub(super) weigh: bool,
}

/// The clocks of a pass.
struct Clocks {
    began: Instant,
    wall_end: Instant,
    cpu_budget: Duration,
    /// CPU time used until the last report, by the child's word. A child that lies is caught by the wall clock.
    cpu_used: Duration,
    /// What the kernel had on the child's meter when the pass began.
    cpu_began: Option<Duration>,
    calls: u32,
}

impl Turn<'_> {
    /// Runs the pass to its end. After an error that is `killed` the child must not be used again.
    pub(super) async fn drive(&self, line: &mut Line, host: &dyn Host) -> Result<Pass, Error> {
        let limits = self.run.limits.capped();
        let began = Instant::now();
        let mut clocks = Clocks {
            began,
            wall_end: began + limits.wall,
            cpu_budget: limits.cpu,
            cpu_used: Duration::ZERO,
            cpu_began: line.meter.read(),
            calls: 0,
        };
        let ended = match self.order(line) {
            Ok(()) => drive_on(line, &mut clocks, limits.calls, host).await,
            Err(error) => Err(lost(&error)),
        };
        if ended.is_err() {
            // Perhaps it did not compile: then the child has not kept it and wants the source again.
            line.known.remove(self.run.bundle.hash.as_str());
        }
        ended.map_err(|mut error| {
            error.wall = began.elapsed();
            error.cpu = error.cpu.max(clocks.cpu_used);
            error
        })
    }

    /// Writes the order to run into the frame of `line`.
    fn order(&self, line: &mut Line) -> io::Result<()> {
        let (run, limits) = (&self.run, self.run.limits.capped());
        let hash = run.bundle.hash.as_str();
        let facts = serde_json::value::to_raw_value(run.facts)?;
        let source = line.known.insert(hash.to_owned()).then(|| run.bundle.source.as_ref().into());
        let order = RunOrder {
            hash,
            name: &run.bundle.name,
            source,
            entry: self.entry,
            input: run.input,
            facts: &facts,
            seed: run.seed,
            now_ms: run.now.timestamp_millis(),
            cpu_us: u64::try_from(limits.cpu.as_micros()).unwrap_or(u64::MAX),
            memory_bytes: limits.memory_bytes,
            calls: limits.calls,
            weigh: self.weigh,
        };
        protocol::begin(&mut line.frame, Kind::Run);
        serde_json::to_writer(&mut line.frame, &order)?;
        Ok(())
    }
}

async fn drive_on(line: &mut Line, clocks: &mut Clocks, calls_most: u32, host: &dyn Host) -> Result<Pass, Error> {
    loop {
        let kind = exchange(line, clocks).await?;
        match kind {
            Kind::Ops => settle(line, clocks, calls_most, host).await?,
            Kind::Done => {
                let done: DoneReport<'_> = line.parse().map_err(|error| lost(&error))?;
                tell(host, done.log);
                let (value, full) = (done.value.to_owned(), done.full);
                let wall = clocks.began.elapsed();
                let cpu = Duration::from_micros(done.cpu_us).min(wall);
                let (memory_bytes, calls) = (done.memory_bytes, clocks.calls);
                let prepared = Duration::from_micros(done.prepared_us);
                line.full = full;
                return storable(&value).map(|()| Pass { value, cpu, prepared, wall, memory_bytes, calls });
            }
            Kind::Threw => {
                let threw: ThrewReport = line.parse().map_err(|error| lost(&error))?;
                tell(host, threw.log);
                let error = CtxError {
                    code: threw.code,
                    message: threw.message,
                    details: threw.details,
                    retry_after_ms: threw.retry_after_ms,
                };
                let cpu = Duration::from_micros(threw.cpu_us);
                return Err(Error { at: threw.at, stack: threw.stack, cpu, ..error.into() });
            }
            Kind::Run | Kind::Settle | Kind::Ready => return Err(lost(&garbage("a report of this kind"))),
        }
    }
}

/// Sends the frame of `line` and waits for the report, no longer than the clocks allow.
async fn exchange(line: &mut Line, clocks: &Clocks) -> Result<Kind, Error> {
    let left = clocks.cpu_budget.saturating_sub(clocks.cpu_used) + KILL_GRACE;
    let mut deadline = (Instant::now() + left).min(clocks.wall_end);
    let (meter, cpu_end) = (line.meter.clone(), clocks.cpu_began.map(|began| began + clocks.cpu_budget + KILL_GRACE));
    let turn = async {
        line.send().await?;
        line.receive().await
    };
    tokio::pin!(turn);
    loop {
        match timeout_at(deadline, &mut turn).await {
            Ok(Ok(kind)) => return Ok(kind),
            Ok(Err(error)) => return Err(lost(&error)),
            Err(_) if Instant::now() >= clocks.wall_end => {
                let error = Error::new(Code::Timeout, "the time of the action ran out while its handler was running");
                return Err(Error { killed: true, ..error });
            }
            Err(_) => {}
        }
        // Late by the wall. On a busy machine the child may have had no core; only its own clock convicts it.
        let left = cpu_end.zip(meter.read()).map_or(Duration::ZERO, |(end, now)| end.saturating_sub(now));
        if left.is_zero() {
            let error = Error::new(Code::CpuLimit, cpu_words(clocks.cpu_budget));
            return Err(Error { killed: true, cpu: clocks.cpu_budget, ..error });
        }
        deadline = (Instant::now() + left.max(LOOK_AGAIN)).min(clocks.wall_end);
    }
}

/// Has the host answer the calls of the last report and writes the answers into the frame of `line`.
async fn settle(line: &mut Line, clocks: &mut Clocks, calls_most: u32, host: &dyn Host) -> Result<(), Error> {
    let ops: OpsReport<'_> = line.parse().map_err(|error| lost(&error))?;
    clocks.cpu_used = Duration::from_micros(ops.cpu_us).min(clocks.began.elapsed());
    clocks.calls = clocks.calls.saturating_add(u32::try_from(ops.calls.len()).unwrap_or(u32::MAX));
    // The child counts too; one that does not is broken.
    if clocks.calls > calls_most || ops.calls.is_empty() {
        return Err(lost(&garbage("more calls than the pass may make")));
    }
    tell(host, ops.log);
    let mut calls = Vec::with_capacity(ops.calls.len());
    let mut answers: Vec<Option<Settled>> = Vec::with_capacity(ops.calls.len());
    for call in &ops.calls {
        match serde_json::from_str(call.args.get()) {
            Ok(args) => {
                calls.push(Call { api: call.api.to_owned(), method: call.method.to_owned(), args });
                answers.push(None);
            }
            Err(error) => {
                let message = format!("the arguments of {}.{} cannot be read: {error}", call.api, call.method);
                answers.push(Some(Err(CtxError::new(Code::ValidationFailed, message))));
            }
        }
    }
    let settled = timeout_at(clocks.wall_end, host.settle(calls)).await.map_err(|_| {
        let error = Error::new(Code::Timeout, "the time of the action ran out while its handler waited for a call");
        Error { killed: true, ..error }
    })?;
    let mut settled = settled.into_iter();
    let missing = || Err(CtxError::new(Code::Internal, "the call was not answered"));
    let answers: Vec<Settled> =
        answers.into_iter().map(|known| known.or_else(|| settled.next()).unwrap_or_else(missing)).collect();
    answer(&mut line.frame, &answers).map_err(|error| lost(&error))
}

/// Writes the answers into `frame`. An answer that is too long, alone or with those before it, becomes an error.
fn answer(frame: &mut Vec<u8>, answers: &[Settled]) -> io::Result<()> {
    protocol::begin(frame, Kind::Settle);
    frame.push(b'[');
    for (index, settled) in answers.iter().enumerate() {
        if index > 0 {
            frame.push(b',');
        }
        let too_long = |length: usize| {
            let message = format!("the answer is {length} bytes long, which is more than a call may bring");
            CtxError::new(Code::QuotaExceeded, message)
        };
        match settled {
            Ok(value) if value.get().len() > FRAME_BYTES || frame.len() + value.get().len() > SETTLE_BYTES => {
                serde_json::to_writer(&mut *frame, &Answer::Err(Refusal::from(&too_long(value.get().len()))))?;
            }
            Ok(value) => serde_json::to_writer(&mut *frame, &Answer::Ok(value))?,
            Err(error) => serde_json::to_writer(&mut *frame, &Answer::Err(Refusal::from(error)))?,
        }
    }
    frame.push(b']');
    Ok(())
}

fn tell(host: &dyn Host, log: Vec<LogLine>) {
    for line in log.into_iter().take(super::limits::LOG_LINES) {
        host.log(line);
    }
}

/// Refuses a result that no database and no client could take: half characters and the character zero.
fn storable(value: &RawValue) -> Result<(), Error> {
    let text = value.get();
    if !text.contains(r"\u") {
        return Ok(());
    }
    let readable = serde_json::from_str::<serde_json::Value>(text).is_ok();
    if readable && !text.contains(r"\u0000") {
        return Ok(());
    }
    Err(Error::new(Code::ValidationFailed, "the result holds the character U+0000 or half a character"))
}

/// The child is gone or out of its mind.
fn lost(error: &io::Error) -> Error {
    let words = match error.kind() {
        io::ErrorKind::InvalidData => format!("the sandbox sent something that is no report: {error}"),
        _ => "the sandbox died during the pass".to_owned(),
    };
    Error { killed: true, ..Error::new(Code::Internal, words) }
}
