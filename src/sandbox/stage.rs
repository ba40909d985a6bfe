//! Where a pass runs: a fresh runtime and context with the prelude in it, made ahead where that is worth it.
//!
//! It holds exactly the builtins that the app's text asks for, so that no app can see what ran before it.

use std::{rc::Rc, time::Duration};

use rquickjs::{
    Context, Ctx, Function, Module, Object, Runtime,
    context::{Intrinsic, intrinsic},
    loader::{ImportAttributes, Loader, Resolver},
};

use super::{
    engine::{Engine, cpu_time, load},
    limits::STACK_BYTES,
    names::Builtins,
    native::{self, Shared},
};

/// What every pass has: neither the compiler nor a clock of its own nor references that betray the collector. What only
/// some apps use and is dear to make comes by [`Builtins`].
type Intrinsics = (intrinsic::Date, intrinsic::Json, intrinsic::Proxy, intrinsic::Promise);

/// A context that waits for its pass.
pub(super) struct Stage {
    pub(super) context: Context,
    pub(super) runtime: Runtime,
    pub(super) shared: Rc<Shared>,
    /// Exactly what the app's text names, so that no app can see what ran before it.
    pub(super) builtins: Builtins,
    /// What it cost.
    pub(super) prepared: Duration,
}

impl Stage {
    /// The heap in use. The engine walks every object to tell, so it is asked only when somebody wants to know.
    pub(super) fn heap_bytes(&self) -> u64 {
        u64::try_from(self.runtime.memory_usage().malloc_size).unwrap_or(0)
    }

    /// A fresh runtime and context with the prelude in it.
    pub(super) fn new(engine: &Engine, builtins: Builtins) -> Self {
        let began = cpu_time();
        let shared = Rc::new(Shared::new());
        let runtime = Runtime::new().expect("a fresh child has memory for a runtime");
        runtime.set_max_stack_size(STACK_BYTES);
        runtime.set_loader(NoImports, NoImports);
        let clock = Rc::clone(&shared);
        runtime.set_interrupt_handler(Some(Box::new(move || clock.over())));
        let context = context(&runtime, builtins).expect("a fresh child has memory for a context");
        runtime.set_host_promise_rejection_tracker(Some(Box::new(|ctx, promise, reason, handled| {
            if let Some(hooks) = ctx.userdata::<Object<'_>>().map(|hooks| hooks.clone()) {
                // It fails when the pass is being stopped, which is known elsewhere.
                let _told = hooks
                    .get::<_, Function<'_>>("track")
                    .and_then(|track| track.call::<_, ()>((promise, reason, handled)))
                    .inspect_err(|_| drop(ctx.catch()));
            }
        })));
        context.with(|ctx| {
            boot(&ctx, engine, &shared).expect("the prelude is ours and boots");
        });
        Self { context, runtime, shared, builtins, prepared: cpu_time().saturating_sub(began) }
    }
}

/// A context with some builtins.
fn context(runtime: &Runtime, builtins: Builtins) -> rquickjs::Result<Context> {
    fn first<I: Intrinsic>(runtime: &Runtime, builtins: Builtins) -> rquickjs::Result<Context> {
        if builtins.typed_arrays {
            second::<(I, intrinsic::TypedArrays)>(runtime, builtins)
        } else {
            second::<I>(runtime, builtins)
        }
    }
    fn second<I: Intrinsic>(runtime: &Runtime, builtins: Builtins) -> rquickjs::Result<Context> {
        if builtins.collections {
            third::<(I, intrinsic::MapSet)>(runtime, builtins)
        } else {
            third::<I>(runtime, builtins)
        }
    }
    fn third<I: Intrinsic>(runtime: &Runtime, builtins: Builtins) -> rquickjs::Result<Context> {
        if builtins.patterns {
            Context::custom::<(I, intrinsic::RegExpCompiler, intrinsic::RegExp)>(runtime)
        } else {
            Context::custom::<I>(runtime)
        }
    }
    first::<Intrinsics>(runtime, builtins)
}

fn boot(ctx: &Ctx<'_>, engine: &Engine, shared: &Rc<Shared>) -> rquickjs::Result<()> {
    let (module, _settled) = load(ctx, engine.prelude)?.eval()?;
    let boot: Function<'_> = module.get("default")?;
    let hooks: Object<'_> = boot.call((native::doors(ctx, shared, engine.later)?,))?;
    ctx.store_userdata(hooks).map(drop).map_err(|_| rquickjs::Error::Unknown)
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
