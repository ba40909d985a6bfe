//! One pass in QuickJS: the realm put back, the app's module, the handler, its calls.
//!
//! Passes run in a context without the engine's compiler, so no text can become code in it. Source is compiled in a context
//! of its own, and only here: bytecode is never taken from anybody else.
//!
//! A module whose top level looks at nothing that differs from pass to pass evaluates to the same each time: it is evaluated
//! once, and its passes begin with an image of that. One that looks (at the clock, say) is evaluated in each pass.

use std::{collections::HashMap, io, rc::Rc, time::Duration};

use rquickjs::{
    Context, Ctx, Function, Module, Object, Promise, Runtime, Value, WriteOptions,
    context::intrinsic,
    loader::{Loader, bundle::Bundle},
    promise::PromiseState,
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    arena::Image,
    child::Pipe,
    limits::{CACHE_BYTES, FRAME_BYTES, IMAGE_BYTES, MEMORY_MAX_BYTES, STACK_BYTES},
    native::Shared,
    parse::parse,
    protocol::{DoneReport, Kind, RunOrder, ThrewReport},
    realm::{Prelude, Realm},
    thrown,
};
use crate::model::error::Code;

/// What compiles a text.
type Compiler = (intrinsic::Eval, intrinsic::Promise, intrinsic::RegExpCompiler);

/// A module as bytecode. The child lives for a bounded number of bundles ([`CACHE_BYTES`]), so it may keep them for good,
/// as the engine asks: it reads the bytes in place.
pub(super) type Compiled = &'static [(&'static str, &'static [u8])];

/// Microtasks between two looks at the clock. A microtask of native code alone may never reach the engine's own poll.
const MICROTASKS_PER_LOOK: u32 = 64;

/// What a child keeps from pass to pass: bytecode, and images of what each pass begins with.
pub(super) struct Engine {
    realm: Realm,
    cache: HashMap<String, App>,
    cached_bytes: usize,
}

/// An app's module.
struct App {
    compiled: Compiled,
    /// The realm with the module evaluated in it, where every pass would evaluate it to the same.
    evaluated: Option<Image>,
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
        let ours = |name, source| compile(name, source, true).ok();
        let prelude = Prelude {
            door: ours("krilin:prelude", include_str!("prelude.js"))?,
            platform: ours("krilin:platform", include_str!("platform.js"))?,
            time: ours("krilin:time", include_str!("time.js"))?,
            web: ours("krilin:web", include_str!("web.js"))?,
        };
        let mut realm = Realm::new(prelude)?;
        let warm = ours("krilin:warm", "export default new Date(2026, 0).getTimezoneOffset()")?;
        let date = realm.enter(|ctx| {
            let (_module, evaluated) = load(ctx, warm)?.eval()?;
            evaluated.finish::<()>()
        });
        date.ok()?;
        realm.put_back(None);
        Some(Self { realm, cache: HashMap::new(), cached_bytes: 0 })
    }

    /// Runs one pass and gives the report to send.
    pub(super) fn run(&mut self, order: &RunOrder<'_>, pipe: &mut Pipe) -> io::Result<(Kind, Vec<u8>)> {
        let began = cpu_time();
        let shared = Rc::clone(&self.realm.shared);
        let ended = match self.bundle(order, began) {
            Ok(()) => self.pass(order, pipe, began),
            Err(report) => (Err(Stop::Threw(report)), Duration::ZERO),
        };
        match ended {
            (Ok(value), prepared) => {
                let report = DoneReport {
                    log: shared.take_log(),
                    value: serde_json::from_str(&value)?,
                    cpu_us: micros(cpu_time().saturating_sub(began)),
                    prepared_us: micros(prepared),
                    memory_bytes: order.weigh.then(|| self.realm.heap_bytes()),
                    full: self.cached_bytes > CACHE_BYTES || self.realm.swollen(),
                };
                Ok((Kind::Done, serde_json::to_vec(&report)?))
            }
            (Err(Stop::Threw(mut report)), _) => {
                report.log = shared.take_log();
                report.cpu_us = micros(cpu_time().saturating_sub(began));
                Ok((Kind::Threw, serde_json::to_vec(&report)?))
            }
            (Err(Stop::Pipe(error)), _) => Err(error),
            (Err(Stop::Exception(error)), _) => Err(io::Error::other(error.to_string())),
        }
    }

    /// Puts the realm back and runs the pass in it; beside how it ended, what the putting back cost.
    fn pass(&mut self, order: &RunOrder<'_>, pipe: &mut Pipe, began: Duration) -> (Result<String, Stop>, Duration) {
        let app = &self.cache[order.hash];
        let prepared = self.realm.put_back(app.evaluated.as_ref());
        let module = app.evaluated.is_none().then_some(app.compiled);
        let shared = Rc::clone(&self.realm.shared);
        shared.arm(order, began);
        self.realm.limit_heap(order.memory_bytes);
        let ended = self.realm.enter(|ctx| {
            let ended = pass(ctx, module, order, pipe, &shared);
            ended.map_err(|stop| thrown::report(ctx, stop, order.name, &shared))
        });
        (ended, prepared)
    }

    /// Sees to it that the bundle is in the cache.
    fn bundle(&mut self, order: &RunOrder<'_>, began: Duration) -> Result<(), Box<ThrewReport>> {
        if self.cache.contains_key(order.hash) {
            return Ok(());
        }
        let source = order.source.as_deref().ok_or_else(|| thrown::plain(Code::Internal, "the child has no source"))?;
        let compiled = compile(order.name, source, false)?;
        if cpu_time().saturating_sub(began) > Duration::from_micros(order.cpu_us) {
            return Err(thrown::plain(Code::CpuLimit, "compiling the bundle took all the CPU time of the pass"));
        }
        let evaluated = self.evaluate(compiled, order, began);
        self.cached_bytes += bytecode(compiled).len() + evaluated.as_ref().map_or(0, Image::bytes);
        self.cache.insert(order.hash.to_owned(), App { compiled, evaluated });
        Ok(())
    }

    /// The realm with the module evaluated in it, if every pass would evaluate it to the same. What fails here fails again in
    /// the pass, and is told there.
    fn evaluate(&mut self, compiled: Compiled, order: &RunOrder<'_>, began: Duration) -> Option<Image> {
        self.realm.put_back(None);
        let shared = Rc::clone(&self.realm.shared);
        shared.arm(order, began);
        self.realm.limit_heap(order.memory_bytes);
        let done = self.realm.enter(|ctx| {
            let hooks = hooks(ctx);
            let (module, evaluated) = load(ctx, compiled)?.eval()?;
            let rested = run_microtasks(ctx, &shared);
            hooks.set("exports", module.namespace()?)?;
            Ok::<_, rquickjs::Error>(rested && evaluated.state() == PromiseState::Resolved)
        });
        let same = done.unwrap_or(false) && !shared.stirred();
        same.then(|| self.realm.image()).filter(|image| image.bytes() <= IMAGE_BYTES)
    }
}

/// Compiles `source` in a context that dies with this function. An app's code keeps its lines for stacks; ours, which is
/// stripped, never shows in one.
fn compile(name: &str, source: &str, strip_debug: bool) -> Result<Compiled, Box<ThrewReport>> {
    let out_of_memory = |_| thrown::plain(Code::MemoryLimit, "out of memory while compiling");
    let runtime = Runtime::new().map_err(out_of_memory)?;
    runtime.set_max_stack_size(STACK_BYTES);
    runtime.set_memory_limit(usize::try_from(MEMORY_MAX_BYTES).unwrap_or(usize::MAX));
    let context = Context::custom::<Compiler>(&runtime).map_err(out_of_memory)?;
    let bytecode = context.with(|ctx| {
        let options = WriteOptions { strip_source: true, strip_debug, ..WriteOptions::default() };
        let written = Module::declare(ctx.clone(), name, source).and_then(|module| module.write(options));
        written.map_err(|error| thrown::syntax(&ctx, &error, name))
    })?;
    let name: &'static str = name.to_owned().leak();
    Ok(vec![(name, &*bytecode.leak())].leak())
}

fn bytecode(compiled: Compiled) -> &'static [u8] {
    compiled.first().map_or(&[], |(_, bytes)| bytes)
}

/// The prelude's functions for us.
fn hooks<'js>(ctx: &Ctx<'js>) -> Object<'js> {
    ctx.userdata::<Object<'_>>().expect("boot stored the hooks").clone()
}

/// Makes a module of bytecode that this process compiled itself.
pub(super) fn load<'js>(ctx: &Ctx<'js>, compiled: Compiled) -> rquickjs::Result<Module<'js>> {
    let name = compiled.first().map_or("", |(name, _)| name);
    Bundle(compiled).load(ctx, name, None)
}

/// The pass: module, unless it is evaluated already, handler, result as JSON text.
fn pass(
    ctx: &Ctx<'_>,
    module: Option<Compiled>,
    order: &RunOrder<'_>,
    pipe: &mut Pipe,
    shared: &Shared,
) -> Result<String, Stop> {
    let hooks = hooks(ctx);
    let facts = parse(ctx, order.facts.get())?;
    hooks.get::<_, Function<'_>>("begin")?.call::<_, ()>((facts, order.calls))?;
    let exports: Object<'_> = match module {
        None => hooks.get("exports")?,
        Some(compiled) => {
            let (module, evaluated) = load(ctx, compiled)?.eval()?;
            pump(ctx, &hooks, &evaluated, pipe, shared)?;
            evaluated.result::<Value<'_>>().transpose()?;
            module.namespace()?
        }
    };
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
        if !run_microtasks(ctx, shared) {
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

/// Runs microtasks until there is none; whether it came to that within the CPU time.
fn run_microtasks(ctx: &Ctx<'_>, shared: &Shared) -> bool {
    let mut ran = 0;
    while ctx.execute_pending_job() {
        ran += 1;
        if shared.interrupted() || (ran % MICROTASKS_PER_LOOK == 0 && shared.over()) {
            break;
        }
    }
    !shared.interrupted()
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
