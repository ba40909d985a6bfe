//! The one door: every call of app code comes through here. Grants, limits and the trace are looked after here and nowhere
//! else, so no method can forget them.

use serde_json::Value;
use tracing::{Instrument, debug_span};

use super::{
    job,
    pass::{Pass, World},
    refusal::{invalid, over},
    schedule::{self, Clock},
    table::Table,
};
use crate::model::{
    error::{Code, CtxError},
    host::{Call, Settled},
    job::StopReason,
    near,
};
use crate::queue::lease::Reason;

/// The most calls of one pass, unless its action says otherwise.
pub const CALLS_DEFAULT: u32 = 200;
/// The most calls of one pass, whatever its action says.
pub const CALLS_MAX: u32 = 1_000;

/// What a method does to what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Touch {
    Reads,
    Writes,
    /// Nothing of them: the call is about the job itself.
    Nothing,
}

/// The methods of storage. `krilin.d.ts` and the sandbox's prelude name the same, which a test holds.
const STORAGE: [(&str, &str, Touch); 8] = [
    ("storage", "query", Touch::Reads),
    ("storage", "find_one", Touch::Reads),
    ("storage", "insert", Touch::Writes),
    ("storage", "insert_many", Touch::Writes),
    ("storage", "update", Touch::Writes),
    ("storage", "delete", Touch::Writes),
    ("storage", "count", Touch::Reads),
    ("storage", "aggregate", Touch::Reads),
];

fn all() -> impl Iterator<Item = &'static (&'static str, &'static str, Touch)> {
    STORAGE.iter().chain(&schedule::METHODS).chain(&job::METHODS)
}

/// The methods as `api.method`.
pub fn methods() -> Vec<String> {
    all().map(|(api, method, _)| format!("{api}.{method}")).collect()
}

/// Answers one call.
pub async fn dispatch(world: &World, pass: &mut Pass, call: Call) -> Settled {
    let span = debug_span!("ctx.call", call.api = call.api, call.method = call.method, app.id = %world.app.id);
    answer(world, pass, call).instrument(span).await
}

async fn answer(world: &World, pass: &mut Pass, call: Call) -> Settled {
    if world.running.as_ref().is_some_and(|running| running.cancelled.reason() == Some(Reason::Cancelled)) {
        return Err(StopReason::Cancelled.error());
    }
    if let Some(broken) = &pass.broken {
        return Err(broken.clone());
    }
    pass.calls += 1;
    if pass.calls > world.calls_max {
        return Err(over(format!("more than {} calls in one pass", world.calls_max)));
    }
    let touch = known(&call)?;
    demand(world, &call, touch)?;
    let about = format!("{}.{}", call.api, call.method);
    if call.api == "schedule" {
        return Clock { world, pass, about }.answer(&call.method, &call.args).await;
    }
    if call.api == "job" {
        return job::answer(world, pass, &call).await;
    }
    let name = call.args.first().and_then(Value::as_str);
    let name = name.ok_or_else(|| invalid(&about, "", "the first argument must be the name of a table"))?;
    let shape = world.app.shapes.get(name).ok_or_else(|| {
        let hint = near::hint(name, world.app.shapes.keys().map(String::as_str));
        invalid(&about, "", format!("`{name}` is no table of `{}`{hint}", world.app.id))
    })?;
    let mut table = Table { world, pass, shape: shape.clone(), about: format!("{about} of {name}") };
    let (second, third, fourth) = (call.args.get(1), call.args.get(2), call.args.get(3));
    match call.method.as_str() {
        "query" => table.query(second).await,
        "find_one" => table.find_one(second).await,
        "insert" => table.insert(second, third).await,
        "insert_many" => table.insert_many(second).await,
        "update" => table.update(second, third, fourth).await,
        "delete" => table.delete(second, third).await,
        "count" => table.count(second).await,
        _ => table.aggregate(second).await,
    }
}

fn known(call: &Call) -> Result<Touch, CtxError> {
    let (api, method) = (call.api.as_str(), call.method.as_str());
    if let Some((_, _, touch)) = all().find(|known| (known.0, known.1) == (api, method)) {
        return Ok(*touch);
    }
    let names = methods();
    let hint = near::hint(&format!("{api}.{method}"), names.iter().map(String::as_str));
    Err(CtxError::new(Code::NotFound, format!("ctx has no `{api}.{method}`{hint}")))
}

fn demand(world: &World, call: &Call, touch: Touch) -> Result<(), CtxError> {
    let grant = match (call.api.as_str(), touch) {
        ("schedule", _) => "schedule",
        (_, Touch::Reads) => "read:own_data",
        (_, Touch::Writes) => "write:own_data",
        (_, Touch::Nothing) => return Ok(()),
    };
    let denied = |message: String| Err(CtxError::new(Code::PermissionDenied, message));
    if world.read_only && touch == Touch::Writes {
        return denied(format!("{}.{} changes rows, and a query action may only read", call.api, call.method));
    }
    if !world.grants.iter().any(|granted| granted == grant) {
        return denied(format!("`{}` has no grant `{grant}`, which {}.{} needs", world.app.id, call.api, call.method));
    }
    Ok(())
}
