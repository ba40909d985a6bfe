//! `ctx.job`: what a handler says and asks of the job it runs in. Refuses a progress that is no progress.

use serde_json::{Value, json, value::to_raw_value};

use super::{
    dispatch::Touch,
    pass::{Pass, World},
    refusal::invalid,
};
use crate::{
    model::{
        error::{Code, CtxError},
        host::{Call, Settled},
        id::JobId,
    },
    store::children,
};

/// The methods of `ctx.job`.
pub(super) const METHODS: [(&str, &str, Touch); 2] =
    [("job", "progress", Touch::Nothing), ("job", "children", Touch::Nothing)];
/// The children that one call gives.
const CHILDREN_PAGE: i64 = 100;

/// Answers `ctx.job.*`. Where no job runs (`krilin app test`), a progress goes nowhere and there are no children.
pub(super) async fn answer(world: &World, pass: &mut Pass, call: &Call) -> Settled {
    let answer = match (call.method.as_str(), &world.running) {
        ("children", Some(running)) => {
            let after = after(call)?;
            let ends = children::ended(&mut *pass.transaction, running.job_id, after, CHILDREN_PAGE).await?;
            pass.count_rows(ends.len())?;
            json!(ends)
        }
        ("children", None) => json!([]),
        (_, Some(running)) => {
            let value = call.args.first().unwrap_or(&Value::Null);
            running.report.progress(value, call.args.get(1).and_then(Value::as_str))?;
            Value::Null
        }
        (_, None) => Value::Null,
    };
    to_raw_value(&answer).map_err(|cause| CtxError::new(Code::Internal, cause.to_string()))
}

fn after(call: &Call) -> Result<Option<JobId>, CtxError> {
    match call.args.first().and_then(|options| options.get("after")) {
        None | Some(Value::Null) => Ok(None),
        Some(after) => after
            .as_str()
            .and_then(|text| text.parse().ok())
            .map(Some)
            .ok_or_else(|| invalid("job.children", "/after", "must be the id of a child")),
    }
}
