//! The few functions that the prelude cannot write in JavaScript, and what they and the engine share during a pass.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

use rquickjs::{Ctx, Exception, Function, Object};
use serde_json::Value;

use super::{
    engine,
    limits::{LOG_BYTES, LOG_LINES},
    protocol::{RunOrder, ThrewReport},
    thrown, time,
};
use crate::model::{
    error::Code,
    host::{LogLevel, LogLine},
};

/// The state of one pass outside JavaScript.
pub(super) struct Shared {
    log: RefCell<Vec<LogLine>>,
    log_lines: Cell<usize>,
    log_bytes: Cell<usize>,
    random: Cell<u64>,
    ids: Cell<u64>,
    drawn: Cell<u16>,
    now_ms: Cell<i64>,
    began: Cell<Duration>,
    budget: Cell<Duration>,
    interrupted: Cell<bool>,
    looked: Cell<bool>,
}

impl Shared {
    pub(super) fn new() -> Self {
        Self {
            log: RefCell::default(),
            log_lines: Cell::new(0),
            log_bytes: Cell::new(0),
            random: Cell::new(0),
            ids: Cell::new(0),
            drawn: Cell::new(0),
            now_ms: Cell::new(0),
            began: Cell::new(Duration::ZERO),
            budget: Cell::new(Duration::MAX),
            interrupted: Cell::new(false),
            looked: Cell::new(false),
        }
    }

    /// Begins a pass: starts the clock, sets where chance begins, and forgets the pass before.
    pub(super) fn arm(&self, order: &RunOrder<'_>, began: Duration) {
        self.log.take();
        self.log_lines.set(0);
        self.log_bytes.set(0);
        self.drawn.set(0);
        self.interrupted.set(false);
        self.looked.set(false);
        self.began.set(began);
        self.budget.set(Duration::from_micros(order.cpu_us));
        self.random.set(order.seed);
        self.ids.set(order.seed ^ 0x6964_7320_6f66_2061);
        self.now_ms.set(order.now_ms);
    }

    /// Whether the pass has been told what another pass would be told otherwise, or has said something.
    pub(super) fn stirred(&self) -> bool {
        self.looked.get() || self.log_lines.get() > 0
    }

    /// CPU time of the pass until now.
    pub(super) fn used(&self) -> Duration {
        engine::cpu_time().saturating_sub(self.began.get())
    }

    /// Looks at the clock. Once true, true for good.
    pub(super) fn over(&self) -> bool {
        if !self.interrupted.get() && self.used() > self.budget.get() {
            self.interrupted.set(true);
        }
        self.interrupted.get()
    }

    /// Whether the last look found the CPU time used up.
    pub(super) fn interrupted(&self) -> bool {
        self.interrupted.get()
    }

    /// The report that the CPU time is used up.
    pub(super) fn cpu_report(&self) -> Box<ThrewReport> {
        thrown::plain(Code::CpuLimit, &cpu_words(self.budget.get()))
    }

    /// The lines since the last report.
    pub(super) fn take_log(&self) -> Vec<LogLine> {
        self.log.take()
    }

    fn push(&self, level: LogLevel, message: String, fields: &str) {
        let (lines, bytes) = (self.log_lines.get(), self.log_bytes.get() + message.len() + fields.len());
        if lines >= LOG_LINES {
            return;
        }
        // The last line that fits says that there were more.
        let line = if lines + 1 == LOG_LINES || bytes > LOG_BYTES {
            self.log_lines.set(LOG_LINES);
            LogLine {
                level: LogLevel::Warn,
                message: "log is full; later lines are dropped".into(),
                fields: Value::Null,
            }
        } else {
            self.log_lines.set(lines + 1);
            self.log_bytes.set(bytes);
            LogLine { level, message, fields: serde_json::from_str(fields).unwrap_or(Value::Null) }
        };
        self.log.borrow_mut().push(line);
    }

    /// SplitMix64: small, fast, and its whole state is the job's seed.
    fn draw(state: &Cell<u64>) -> u64 {
        let next = state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        state.set(next);
        let mut z = next;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The job's instant, as JavaScript's time value.
    #[expect(clippy::cast_precision_loss, reason = "JavaScript's instants are doubles")]
    fn now(&self) -> f64 {
        self.looked.set(true);
        self.now_ms.get() as f64
    }

    /// A number in `[0, 1)` with 53 random bits.
    #[expect(clippy::cast_precision_loss, reason = "53 bits fit a double exactly")]
    fn random(&self) -> f64 {
        self.looked.set(true);
        (Self::draw(&self.random) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A UUIDv7 of the job's instant; the same job draws the same ids in the same order, and they sort in that order.
    fn id(&self) -> String {
        self.looked.set(true);
        let mut bytes = [0; 10];
        bytes[2..].copy_from_slice(&Self::draw(&self.ids).to_be_bytes());
        let drawn = self.drawn.get();
        self.drawn.set(drawn.wrapping_add(1));
        bytes[..2].copy_from_slice(&(drawn & 0x0fff).to_be_bytes());
        let millis = self.now_ms.get().max(0).unsigned_abs();
        uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid().to_string()
    }
}

/// What the limit on CPU time says when it is met, here or in the parent.
pub(super) fn cpu_words(budget: Duration) -> String {
    format!("the handler used more than its {} ms of CPU time in one pass", budget.as_millis())
}

/// The object that the prelude's `boot` gets.
pub(super) fn doors<'js>(ctx: &Ctx<'js>, shared: &Rc<Shared>) -> rquickjs::Result<Object<'js>> {
    let doors = Object::new(ctx.clone())?;
    let pass = Rc::clone(shared);
    doors.set(
        "log",
        Function::new(ctx.clone(), move |level: String, message: String, fields: String| {
            let level = match level.as_str() {
                "debug" => LogLevel::Debug,
                "warn" => LogLevel::Warn,
                "error" => LogLevel::Error,
                _ => LogLevel::Info,
            };
            pass.push(level, message, &fields);
        })?,
    )?;
    let pass = Rc::clone(shared);
    doors.set("now", Function::new(ctx.clone(), move || pass.now())?)?;
    let pass = Rc::clone(shared);
    doors.set("random", Function::new(ctx.clone(), move || pass.random())?)?;
    let pass = Rc::clone(shared);
    doors.set("id", Function::new(ctx.clone(), move || pass.id())?)?;
    let reckon = |ctx: Ctx<'js>, op: String, a: String, b: String, c: String| {
        time::reckon(&op, &a, &b, &c).map_err(|problem| Exception::throw_type(&ctx, &problem.to_string()))
    };
    doors.set("time", Function::new(ctx.clone(), reckon)?)?;
    Ok(doors)
}
