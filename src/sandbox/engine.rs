//! One pass in QuickJS: a fresh runtime and context, the app's module from bytecode, the handler, its calls.
//!
//! The context of a pass is built without the engine's compiler, so no text can become code in it. Source is compiled in
//! a context of its own, and only here: bytecode is never taken from anybody else.

use std::{collections::HashMap, io, rc::Rc, time::Duration};

use rquickjs::{
    Context, Ctx, Function, Module, Object, Promise, Runtime, Value, WriteOptions,
    context::{Intrinsic, intrinsic},
    loader::{Loader, bundle::Bundle},
    promise::PromiseState,
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    child::Pipe,
    limits::{CACHE_BYTES, FRAME_BYTES, MEMORY_MAX_BYTES, STACK_BYTES},
    names::{Builtins, Names},
    native::{Later, Shared},
    parse::parse,
    protocol::{DoneReport, Kind, RunOrder, ThrewReport},
    stage::Stage,
    thrown,
};
use crate::model::error::Code;

/// What compiles a text without patterns.
type Compiler = (intrinsic::Eval, intrinsic::Promise);

/// A module as bytecode. The child lives for a bounded number of bundles ([`CACHE_BYTES`]), so it may keep them for good,
/// as the engine asks: it reads the bytes in place.
pub(super) type Compiled = &'static [(&'static str, &'static [u8])];

/// Microtasks between two looks at the clock. A microtask of native code alone may never reach the engine's own poll.
const MICROTASKS_PER_LOOK: u32 = 64;

/// What a child keeps from pass to pass: bytecode, nothing else.
pub(super) struct Engine {
    pub(super) prelude: Compiled,
    pub(super) later: Later,
    cache: HashMap<String, App>,
    cached_bytes: usize,
}

/// An app's module, and what its text asks of a context.
#[derive(Clone, Copy)]
struct App {
    compiled: Compiled,
    names: Names,
}

/// Why a pass stops before its handler has returned.
pub(super) enum Stop {
    /// The pipe to the parent broke: the child ends.
    Pipe(io::Error),
    /// The pass failed.
    Threw(Box<ThrewReport>),
    /// An exception is pending in the context.
    Exception(rquickjs::Error),
}

impl From<rquickjs::Error> for Stop {
    fn from(error: rquickjs::Error) -> Self {
        Self::Exception(error)
    }
}

/// CPU time of this process: of its one thread, because the process's own clock stands still between ticks while the
/// kernel enforces a limit on CPU time.
pub(super) fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

impl Engine {
    /// Compiles what every pass needs and runs an empty pass, so that the process has touched what it will need (the
    /// zone of the C library among it) before it is locked down. None when the engine does not start.
    pub(super) fn warm() -> Option<Self> {
        let mut engine = Self {
            prelude: &[],
            later: Later { late: &[], web: &[], time: &[] },
            cache: HashMap::new(),
            cached_bytes: 0,
        };
        engine.prelude = engine.compile("krilin:prelude", include_str!("prelude.js")).ok()?;
        engine.later.late = engine.compile("krilin:late", include_str!("late.js")).ok()?;
        engine.later.web = engine.compile("krilin:web", include_str!("web.js")).ok()?;
        engine.later.time = engine.compile("krilin:time", include_str!("time.js")).ok()?;
        let warm = engine.compile("krilin:warm", "export default new Date(2026, 0).getTimezoneOffset()").ok()?;
        let stage = Stage::new(&engine, Builtins::ALL);
        let date = stage.context.with(|ctx| {
            let hooks = ctx.userdata::<Object<'_>>().expect("boot stored the hooks").clone();
            hooks.get::<_, Function<'_>>("begin")?.call::<_, ()>(((), 0, 0, Names::MOST))?;
            let (_module, evaluated) = load(&ctx, warm)?.eval()?;
            evaluated.finish::<()>()
        });
        date.ok()?;
        engine.cached_bytes = 0;
        Some(engine)
    }

    /// Runs one pass and gives the report to send. `ahead` is the context that was made for it, if one was; one that is not
    /// what the app asks for is made anew. It holds the pass's context afterwards.
    pub(super) fn run(
        &mut self,
        ahead: &mut Option<Stage>,
        order: &RunOrder<'_>,
        pipe: &mut Pipe,
    ) -> io::Result<(Kind, Vec<u8>)> {
        let began = cpu_time();
        let app = self.bundle(order, began);
        let builtins = app.as_ref().map_or(Builtins::default(), |app| app.names.builtins);
        let stage = match ahead.take().filter(|stage| stage.builtins == builtins) {
            Some(stage) => ahead.insert(stage),
            None => ahead.insert(Stage::new(self, builtins)),
        };
        stage.shared.arm(order, began);
        let shared = Rc::clone(&stage.shared);
        stage.runtime.set_memory_limit(usize::try_from(order.memory_bytes).unwrap_or(usize::MAX));
        let ended = match app {
            Ok(app) => stage.context.with(|ctx| {
                let ended = pass(&ctx, app, order, pipe, &shared);
                ended.map_err(|stop| thrown::report(&ctx, stop, order.name, &shared))
            }),
            Err(report) => Err(Stop::Threw(report)),
        };
        match ended {
            Ok(value) => {
                let report = DoneReport {
                    log: shared.take_log(),
                    value: serde_json::from_str(&value)?,
                    cpu_us: micros(cpu_time().saturating_sub(began)),
                    prepared_us: micros(stage.prepared),
                    memory_bytes: order.weigh.then(|| stage.heap_bytes()),
                    full: self.cached_bytes > CACHE_BYTES,
                };
                Ok((Kind::Done, serde_json::to_vec(&report)?))
            }
            Err(Stop::Threw(mut report)) => {
                report.log = shared.take_log();
                report.cpu_us = micros(cpu_time().saturating_sub(began));
                Ok((Kind::Threw, serde_json::to_vec(&report)?))
            }
            Err(Stop::Pipe(error)) => Err(error),
            Err(Stop::Exception(error)) => Err(io::Error::other(error.to_string())),
        }
    }

    fn bundle(&mut self, order: &RunOrder<'_>, began: Duration) -> Result<App, Box<ThrewReport>> {
        if let Some(app) = self.cache.get(order.hash) {
            return Ok(*app);
        }
        let source = order.source.as_deref().ok_or_else(|| thrown::plain(Code::Internal, "the child has no source"))?;
        let mut names = Names::of(source);
        // A text that compiles without patterns has none.
        let plain = (!names.builtins.patterns).then(|| self.compile_within::<Compiler>(order.name, source, false));
        let compiled = if let Some(Ok(compiled)) = plain {
            compiled
        } else {
            names.builtins.patterns = true;
            self.compile_within::<(Compiler, intrinsic::RegExpCompiler)>(order.name, source, false)?
        };
        if cpu_time().saturating_sub(began) > Duration::from_micros(order.cpu_us) {
            return Err(thrown::plain(Code::CpuLimit, "compiling the bundle took all the CPU time of the pass"));
        }
        let app = App { compiled, names };
        self.cache.insert(order.hash.to_owned(), app);
        Ok(app)
    }

    fn compile(&mut self, name: &'static str, source: &str) -> Result<Compiled, Box<ThrewReport>> {
        self.compile_within::<(Compiler, intrinsic::RegExpCompiler)>(name, source, true)
    }

    /// Compiles `source` in a context that dies with this function. An app's code keeps its lines for stacks; ours, which is
    /// stripped, never shows in one.
    fn compile_within<I: Intrinsic>(
        &mut self,
        name: &str,
        source: &str,
        strip_debug: bool,
    ) -> Result<Compiled, Box<ThrewReport>> {
        let out_of_memory = |_| thrown::plain(Code::MemoryLimit, "out of memory while compiling");
        let runtime = Runtime::new().map_err(out_of_memory)?;
        runtime.set_max_stack_size(STACK_BYTES);
        runtime.set_memory_limit(usize::try_from(MEMORY_MAX_BYTES).unwrap_or(usize::MAX));
        let context = Context::custom::<I>(&runtime).map_err(out_of_memory)?;
        let bytecode = context.with(|ctx| {
            let options = WriteOptions { strip_source: true, strip_debug, ..WriteOptions::default() };
            let written = Module::declare(ctx.clone(), name, source).and_then(|module| module.write(options));
            written.map_err(|error| thrown::syntax(&ctx, &error, name))
        })?;
        self.cached_bytes += bytecode.len();
        let name: &'static str = name.to_owned().leak();
        Ok(vec![(name, &*bytecode.leak())].leak())
    }
}

/// Makes a module of bytecode that this process compiled itself.
pub(super) fn load<'js>(ctx: &Ctx<'js>, compiled: Compiled) -> rquickjs::Result<Module<'js>> {
    let name = compiled.first().map_or("", |(name, _)| name);
    Bundle(compiled).load(ctx, name, None)
}

/// The pass: module, handler, result as JSON text.
fn pass(ctx: &Ctx<'_>, app: App, order: &RunOrder<'_>, pipe: &mut Pipe, shared: &Shared) -> Result<String, Stop> {
    let hooks: Object<'_> = ctx.userdata::<Object<'_>>().expect("boot stored the hooks").clone();
    let facts = parse(ctx, order.facts.get())?;
    hooks.get::<_, Function<'_>>("begin")?.call::<_, ()>((
        facts,
        millis(order.now_ms),
        order.calls,
        app.names.install,
    ))?;
    let (module, evaluated) = load(ctx, app.compiled)?.eval()?;
    pump(ctx, &hooks, &evaluated, pipe, shared)?;
    evaluated.result::<Value<'_>>().transpose()?;
    let exports = module.namespace()?;
    let Some(entry) = order.entry else { return names(&exports) };
    let handler: Value<'_> = exports.get(entry)?;
    if !handler.is_function() {
        let message = format!("{} exports no function `{entry}`", order.name);
        return Err(Stop::Threw(thrown::plain(Code::NotFound, &message)));
    }
    let input = parse(ctx, order.input.get())?;
    let returned: Promise<'_> = hooks.get::<_, Function<'_>>("start")?.call((handler, input))?;
    pump(ctx, &hooks, &returned, pipe, shared)?;
    let value = returned.result::<Value<'_>>().transpose()?;
    hooks.get::<_, Function<'_>>("check_orphans")?.call::<_, ()>(())?;
    let text = value.map(|value| ctx.json_stringify(value)).transpose()?.flatten();
    let text = text.map_or_else(|| Ok("null".to_owned()), |text| text.to_string())?;
    if shared.over() {
        return Err(Stop::Threw(shared.cpu_report()));
    }
    if text.len() > FRAME_BYTES {
        let message = format!("the result is {} bytes long, the most is {FRAME_BYTES}", text.len());
        return Err(Stop::Threw(thrown::plain(Code::QuotaExceeded, &message)));
    }
    Ok(text)
}

/// Runs microtasks and calls until `awaited` is settled and no call is left unanswered.
fn pump<'js>(
    ctx: &Ctx<'js>,
    hooks: &Object<'js>,
    awaited: &Promise<'js>,
    pipe: &mut Pipe,
    shared: &Shared,
) -> Result<(), Stop> {
    let take: Function<'_> = hooks.get("take")?;
    loop {
        let mut ran = 0;
        while ctx.execute_pending_job() {
            ran += 1;
            if shared.interrupted() || (ran % MICROTASKS_PER_LOOK == 0 && shared.over()) {
                break;
            }
        }
        if shared.interrupted() {
            return Err(Stop::Threw(shared.cpu_report()));
        }
        let calls: String = take.call(())?;
        if !calls.is_empty() {
            let answers = ask(&calls, pipe, shared).map_err(Stop::Pipe)?;
            hooks.get::<_, Function<'_>>("settle")?.call::<_, ()>((parse(ctx, &answers)?,))?;
        } else if awaited.state() == PromiseState::Pending {
            let message = "the handler waits for a promise that nothing can settle";
            return Err(Stop::Threw(thrown::plain(Code::Stalled, message)));
        } else {
            return Ok(());
        }
    }
}

/// Sends the calls that are pending and waits for the answers.
fn ask(calls: &str, pipe: &mut Pipe, shared: &Shared) -> io::Result<String> {
    let log = serde_json::to_string(&shared.take_log())?;
    let report = format!(r#"{{"log":{log},"cpu_us":{},"calls":[{calls}]}}"#, micros(shared.used()));
    pipe.send(Kind::Ops, report.as_bytes())?;
    match pipe.receive()? {
        Some(Kind::Settle) => String::from_utf8(std::mem::take(&mut pipe.order)).map_err(io::Error::other),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The names of the functions a module exports, as a JSON array in alphabetical order.
fn names(exports: &Object<'_>) -> Result<String, Stop> {
    let mut names = Vec::new();
    for name in exports.keys::<String>() {
        let name = name?;
        if exports.get::<_, Value<'_>>(&name)?.is_function() {
            names.push(name);
        }
    }
    serde_json::to_string(&names).map_err(|error| Stop::Pipe(error.into()))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// JavaScript's time value.
#[expect(clippy::cast_precision_loss, reason = "JavaScript's instants are doubles")]
fn millis(now_ms: i64) -> f64 {
    now_ms as f64
}
