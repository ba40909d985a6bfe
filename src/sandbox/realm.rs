//! Where passes run: one runtime and context with the prelude in it, put back between passes as it was when it was new.
//!
//! A pass finds every byte of the engine as the pass before found it, whatever that one did: not because it was cleaned up,
//! but because an image is copied over it.

use std::{mem::ManuallyDrop, rc::Rc, time::Duration};

use rquickjs::{
    Context, Ctx, Function, Module, Object, Runtime, Value,
    context::intrinsic,
    loader::{ImportAttributes, Loader, Resolver},
};

use super::{
    arena::{Arena, Image},
    engine::{Compiled, cpu_time, load},
    limits::{STACK_BYTES, SWOLLEN_BYTES},
    native::{self, Shared},
};

/// What app code has of the language: all but the compiler, a clock of its own, and references that betray the collector.
type Intrinsics = (
    (intrinsic::Date, intrinsic::Json, intrinsic::Proxy, intrinsic::Promise),
    (intrinsic::RegExpCompiler, intrinsic::RegExp, intrinsic::MapSet, intrinsic::TypedArrays),
);

/// The heap at which the engine first looks for cycles. Few passes come to it; what they leave is copied over.
const COLLECT_BYTES: usize = 4 << 20;

/// Our own half of what app code sees, as bytecode.
#[derive(Clone, Copy)]
pub(super) struct Prelude {
    /// `ctx` and its calls.
    pub(super) door: Compiled,
    /// Errors, log, clock.
    pub(super) platform: Compiled,
    /// `ctx.time`.
    pub(super) time: Compiled,
    /// Names of the web platform.
    pub(super) web: Compiled,
}

/// The engine, and what it was when it was new.
pub(super) struct Realm {
    pub(super) shared: Rc<Shared>,
    // The process ends with them: to free one by one what an image was copied over is no use to anybody.
    context: ManuallyDrop<Context>,
    runtime: ManuallyDrop<Runtime>,
    arena: Arena,
    fresh: Image,
}

impl Realm {
    /// A runtime and context with the prelude in it. None when there is no memory or the prelude does not run.
    pub(super) fn new(prelude: Prelude) -> Option<Self> {
        let arena = Arena::new();
        let shared = Rc::new(Shared::new());
        let runtime = Runtime::new_with_alloc(arena.clone()).ok()?;
        runtime.set_max_stack_size(STACK_BYTES);
        runtime.set_gc_threshold(COLLECT_BYTES);
        runtime.set_loader(NoImports, NoImports);
        let clock = Rc::clone(&shared);
        runtime.set_interrupt_handler(Some(Box::new(move || clock.over())));
        runtime.set_host_promise_rejection_tracker(Some(Box::new(|ctx, promise, reason, handled| {
            if let Some(hooks) = ctx.userdata::<Object<'_>>().map(|hooks| hooks.clone()) {
                // It fails when the pass is being stopped, which is known elsewhere.
                let _told = hooks
                    .get::<_, Function<'_>>("track")
                    .and_then(|track| track.call::<_, ()>((promise, reason, handled)))
                    .inspect_err(|_| drop(ctx.catch()));
            }
        })));
        let context = Context::custom::<Intrinsics>(&runtime).ok()?;
        context.with(|ctx| boot(&ctx, prelude, &shared)).ok()?;
        let (context, runtime) = (ManuallyDrop::new(context), ManuallyDrop::new(runtime));
        let fresh = arena.image();
        Some(Self { shared, context, runtime, arena, fresh })
    }

    /// Makes the realm what it was when `image` was taken, or when it was new; gives the CPU time that took.
    pub(super) fn put_back(&mut self, image: Option<&Image>) -> Duration {
        let began = cpu_time();
        self.arena.put_back(image.unwrap_or(&self.fresh));
        cpu_time().saturating_sub(began)
    }

    /// What the realm holds now.
    pub(super) fn image(&mut self) -> Image {
        self.arena.image()
    }

    /// Enters the context. No value of the engine gets out.
    pub(super) fn enter<R>(&mut self, f: impl FnOnce(&Ctx<'_>) -> R) -> R {
        self.context.with(|ctx| f(&ctx))
    }

    /// Sets the most heap, until the realm is put back.
    pub(super) fn limit_heap(&mut self, bytes: u64) {
        self.runtime.set_memory_limit(usize::try_from(bytes).unwrap_or(usize::MAX));
    }

    /// The heap in use. The engine walks every object to tell, so it is asked only when somebody wants to know.
    pub(super) fn heap_bytes(&self) -> u64 {
        u64::try_from(self.runtime.memory_usage().malloc_size).unwrap_or(0)
    }

    /// Whether the process holds much memory for what a pass once used.
    pub(super) fn swollen(&self) -> bool {
        self.arena.peak_bytes() > SWOLLEN_BYTES
    }
}

fn boot(ctx: &Ctx<'_>, prelude: Prelude, shared: &Rc<Shared>) -> rquickjs::Result<()> {
    let boot: Function<'_> = part(ctx, prelude.door)?;
    let parts: [Value<'_>; 3] = [part(ctx, prelude.platform)?, part(ctx, prelude.time)?, part(ctx, prelude.web)?];
    let [platform, time, web] = parts;
    let hooks: Object<'_> = boot.call((native::doors(ctx, shared)?, platform, time, web))?;
    ctx.store_userdata(hooks).map(drop).map_err(|_| rquickjs::Error::Unknown)
}

/// What a module of ours exports.
fn part<'js, T: rquickjs::FromJs<'js>>(ctx: &Ctx<'js>, compiled: Compiled) -> rquickjs::Result<T> {
    let (module, _settled) = load(ctx, compiled)?.eval()?;
    module.get("default")
}

/// Refuses every `import`.
struct NoImports;

impl Resolver for NoImports {
    fn resolve<'js>(
        &mut self,
        ctx: &Ctx<'js>,
        _base: &str,
        name: &str,
        _attributes: Option<ImportAttributes<'js>>,
    ) -> rquickjs::Result<String> {
        let message = format!("cannot import '{name}': an app is one file and imports nothing");
        Err(rquickjs::Exception::throw_reference(ctx, &message))
    }
}

impl Loader for NoImports {
    fn load<'js>(
        &mut self,
        _ctx: &Ctx<'js>,
        name: &str,
        _attributes: Option<ImportAttributes<'js>>,
    ) -> rquickjs::Result<Module<'js>> {
        Err(rquickjs::Error::new_loading(name))
    }
}
