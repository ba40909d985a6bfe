//! May this caller call this action of this app with this input? Asked before anything is enqueued or run.
//!
//! Refuses an app that is not published or not installed, an action that does not exist or is of the other sort, and an
//! input that does not fit, with everything that is wrong in it.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Web,
    auth::Caller,
    error::{FieldError, Problem},
};
use crate::{
    apps::loaded::LoadedApp,
    model::{
        error::{Code, CtxError},
        id::AppId,
        manifest::ActionKind,
    },
    store::{self, installations},
};

/// Which part of a call an error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    App,
    Action,
    Input,
}

/// Why a call is refused.
#[derive(Debug)]
pub struct Refusal {
    part: Part,
    error: CtxError,
}

impl Refusal {
    fn of(part: Part) -> impl Fn(CtxError) -> Self {
        move |error| Self { part, error }
    }

    /// As the answer to a request that is this one call.
    pub fn into_problem(self) -> Problem {
        self.error.into()
    }

    /// As what is wrong in a job's description below `base`. A server that cannot tell is an error of the whole request.
    pub fn at(self, base: &str) -> Result<Vec<FieldError>, Problem> {
        let Self { part, error } = self;
        if matches!(error.code, Code::Unavailable | Code::Internal | Code::Conflict) {
            return Err(error.into());
        }
        let place = match part {
            Part::App => "/app_id",
            Part::Action => "/args/action",
            Part::Input => "/args/input",
        };
        let message = error.message.clone();
        let below = Problem::from(error).into_errors();
        if below.is_empty() {
            return Ok(vec![FieldError { pointer: format!("{base}{place}"), message }]);
        }
        let moved = |inner: FieldError| FieldError { pointer: format!("{base}{place}{}", inner.pointer), ..inner };
        Ok(below.into_iter().map(moved).collect())
    }
}

/// How an action is called: the part of the path before its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// As a job: it may change things.
    Action,
    /// At once: it only reads.
    Query,
}

/// The app, when `caller` may call its action `action` as `sort` with `input`. Defaults are filled in.
pub async fn check(
    web: &Web,
    caller: &Caller,
    app: &AppId,
    (sort, action): (Sort, &str),
    input: &mut Value,
) -> Result<Arc<LoadedApp>, Refusal> {
    let loaded = installed(web, caller, app).await?;
    let found = loaded.action(action).map_err(Refusal::of(Part::Action))?;
    let own = if found.kind == ActionKind::Query { Sort::Query } else { Sort::Action };
    if own != sort {
        let (is, place) = if own == Sort::Query { ("a query", "queries") } else { ("no query", "actions") };
        let message = format!("`{action}` is {is}; send it to /api/v1/apps/{app}/{place}/{action}");
        return Err(Refusal { part: Part::Action, error: CtxError::new(Code::NotFound, message) });
    }
    loaded.check_input(action, input).map_err(Refusal::of(Part::Input))?;
    Ok(loaded)
}

/// The app, when it is published and `caller`'s user has it.
async fn installed(web: &Web, caller: &Caller, app: &AppId) -> Result<Arc<LoadedApp>, Refusal> {
    let refused = Refusal::of(Part::App);
    let loaded = web.apps().current(app).await.map_err(|error| refused(error.into()))?;
    let key = (caller.user_id(), app.clone());
    if web.installed().recall(&key).is_none() {
        let found = installations::find(web.pool(), caller.user_id(), app).await;
        match found.map_err(|error: store::Error| refused(error.into()))? {
            Some(installation) if installation.state == "active" => web.installed().keep(key, ()),
            Some(installation) => {
                let message = format!("`{app}` is {} for this user", installation.state);
                return Err(refused(CtxError::new(Code::NotInstalled, message)));
            }
            None => return Err(refused(CtxError::new(Code::NotInstalled, format!("`{app}` is not installed")))),
        }
    }
    Ok(loaded)
}
