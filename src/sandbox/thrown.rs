//! What app code threw, as a report with the author's line in it.

use rquickjs::{Ctx, Exception, Function, Object, Value};
use serde::Deserialize;

use super::{engine::Stop, error::Position, limits::ERROR_TEXT_BYTES, native::Shared, protocol::ThrewReport};
use crate::model::error::Code;

/// What the limit on memory says.
const OUT_OF_MEMORY: &str = "the handler used more memory than the pass has";

/// What the prelude's `describe` says of a thrown value.
#[derive(Deserialize)]
struct Described {
    code: Code,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Option<serde_json::Value>,
    #[serde(default)]
    retry_after_ms: Option<u64>,
    #[serde(default)]
    stack: String,
}

/// A report without place and stack.
pub(super) fn plain(code: Code, message: &str) -> Box<ThrewReport> {
    Box::new(ThrewReport {
        log: Vec::new(),
        code,
        message: cut(message.to_owned()),
        details: None,
        retry_after_ms: None,
        at: None,
        stack: String::new(),
        cpu_us: 0,
    })
}

/// Turns a pending exception into a report; other stops stay what they are.
pub(super) fn report(ctx: &Ctx<'_>, stop: Stop, name: &str, shared: &Shared) -> Stop {
    let error = match stop {
        Stop::Exception(error) => error,
        Stop::Threw(_) | Stop::Pipe(_) => return stop,
    };
    // The end of the CPU time is an exception that no handler can catch; it is known by the clock, not by its words.
    if shared.interrupted() {
        return Stop::Threw(shared.cpu_report());
    }
    if !error.is_exception() {
        return Stop::Threw(foreign(&error));
    }
    let thrown = ctx.catch();
    // With no memory left even for an error, the engine throws null.
    if thrown.is_null() {
        return Stop::Threw(plain(Code::MemoryLimit, "the handler used more memory than the pass has, or threw null"));
    }
    let described = describe(ctx, thrown.clone());
    if shared.interrupted() {
        return Stop::Threw(shared.cpu_report());
    }
    let Some(described) = described else { return Stop::Threw(speechless(ctx, &thrown)) };
    let (at, stack) = frames(&described.stack, name);
    Stop::Threw(Box::new(ThrewReport {
        code: described.code,
        details: described.details.filter(|details| details.to_string().len() <= ERROR_TEXT_BYTES),
        retry_after_ms: described.retry_after_ms,
        at,
        stack,
        ..*plain(described.code, &memory_words(described.code, described.message))
    }))
}

fn memory_words(code: Code, message: String) -> String {
    if code == Code::MemoryLimit { OUT_OF_MEMORY.to_owned() } else { message }
}

fn describe<'js>(ctx: &Ctx<'js>, thrown: Value<'js>) -> Option<Described> {
    let hooks: Object<'_> = ctx.userdata::<Object<'_>>()?.clone();
    let text = hooks.get::<_, Function<'_>>("describe").and_then(|describe| describe.call::<_, String>((thrown,)));
    let text = text.inspect_err(|_| drop(ctx.catch())).ok()?;
    serde_json::from_str(&text).ok()
}

/// The engine could not even run `describe`: no memory, or a value made to resist.
fn speechless(ctx: &Ctx<'_>, thrown: &Value<'_>) -> Box<ThrewReport> {
    let words = thrown.as_object().and_then(|object| Exception::from_object(object.clone()));
    let words = words.and_then(|exception| exception.message()).unwrap_or_default();
    drop(ctx.catch());
    if words == "out of memory" {
        return plain(Code::MemoryLimit, OUT_OF_MEMORY);
    }
    plain(Code::AppError, "the app threw something that cannot be shown")
}

/// Errors of the bridge rather than of JavaScript.
fn foreign(error: &rquickjs::Error) -> Box<ThrewReport> {
    match error {
        rquickjs::Error::Allocation => plain(Code::MemoryLimit, OUT_OF_MEMORY),
        rquickjs::Error::Utf8(_) => plain(Code::AppError, "the result holds half a character (a lone surrogate)"),
        other => plain(Code::AppError, &other.to_string()),
    }
}

/// A source that does not compile.
pub(super) fn syntax(ctx: &Ctx<'_>, error: &rquickjs::Error, name: &str) -> Box<ThrewReport> {
    if !error.is_exception() {
        return plain(Code::AppError, &format!("{name} does not compile: {error}"));
    }
    let thrown = ctx.catch();
    let exception = thrown.as_object().and_then(|object| Exception::from_object(object.clone()));
    let message = exception.as_ref().and_then(Exception::message).unwrap_or_default();
    if message == "out of memory" {
        return plain(Code::MemoryLimit, "out of memory while compiling");
    }
    let (at, stack) = frames(&exception.and_then(|exception| exception.stack()).unwrap_or_default(), name);
    Box::new(ThrewReport { at, stack, ..*plain(Code::AppError, &format!("SyntaxError: {message}")) })
}

/// The author's frames of a stack, and the place of the first.
fn frames(stack: &str, name: &str) -> (Option<Position>, String) {
    let own: Vec<&str> = stack.lines().filter(|line| place(line, name).is_some()).collect();
    (own.first().and_then(|line| place(line, name)), cut(own.join("\n")))
}

/// The place in a line like `    at handler (app.js:12:30)` or `    at app.js:12:30`.
fn place(line: &str, name: &str) -> Option<Position> {
    let (_, after) = line.split_once(&format!("{name}:"))?;
    let mut numbers = after.split(|c: char| !c.is_ascii_digit());
    let (line, column) = (numbers.next()?.parse().ok()?, numbers.next().and_then(|n| n.parse().ok()).unwrap_or(1));
    Some(Position { file: name.to_owned(), line, column })
}

/// At most [`ERROR_TEXT_BYTES`] of a text, cut between characters.
fn cut(mut text: String) -> String {
    if text.len() > ERROR_TEXT_BYTES {
        text.truncate(text.floor_char_boundary(ERROR_TEXT_BYTES));
        text.push('…');
    }
    text
}
