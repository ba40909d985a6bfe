//! Queries of apps: run here and now, in a read-only transaction; no job.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    http::header,
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use crate::{
    apps::loaded::LoadedApp,
    ctx::{self, Opening, facts},
    model::{
        error::CtxError,
        id::{AppId, UserId},
        token::Scope,
    },
    sandbox::Run,
    web::{
        Web,
        auth::Caller,
        body::{self, JsonBytes, json},
        call::{self, Refusal, Sort},
        error::{Document, Kind, Problem},
        limit,
        trace::Trace,
    },
};

/// A query's result as an answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Answer {
    /// What the query returned.
    #[schema(value_type = serde_json::Value)]
    pub result: Box<RawValue>,
}

/// Runs a query of an installed app. The body is its input.
#[utoipa::path(post, path = "/api/v1/apps/{app_id}/queries/{action}", tag = "apps", operation_id = "run_query",
    request_body(content = Object, description = "The query's input"),
    params(("app_id" = String, Path, description = "The app"), ("action" = String, Path, description = "The query")),
    responses((status = 200, description = "What the query returned", body = Answer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json"),
        (status = "5XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn run(
    State(web): State<Web>,
    caller: Caller,
    Path((app_id, action)): Path<(String, String)>,
    trace: Trace,
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    caller.may(Scope::AppsRead)?;
    let app_id: AppId = app_id.parse().map_err(|_| Problem::not_found(format!("there is no app `{app_id}`")))?;
    let mut input = body::input(&body)?;
    let app =
        call::check(&web, &caller, &app_id, (Sort::Query, &action), &mut input).await.map_err(Refusal::into_problem)?;
    let input = to_raw_value(&input).map_err(|cause| Problem::new(Kind::BadRequest, cause.to_string()))?;
    let query = Query { app, action: &action, user: caller.user_id(), input: &input, seed: trace.seed() };
    let answer = Answer { result: query.run(&web).await? };
    Ok(([(header::CONTENT_TYPE, "application/json")], json(&answer)?).into_response())
}

/// One query, checked.
struct Query<'a> {
    app: Arc<LoadedApp>,
    action: &'a str,
    user: UserId,
    input: &'a RawValue,
    seed: u64,
}

impl Query<'_> {
    async fn run(&self, web: &Web) -> Result<Box<RawValue>, Problem> {
        // A place before a connection: queries that wait for a sandbox must not hold what enqueuing needs.
        let place = tokio::time::timeout(limit::QUERY_WAIT, web.queries().acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err(Problem::new(Kind::Overloaded, "too many queries are waiting")
                .with_retry_after(limit::OVERLOADED_RETRY_AFTER));
        };
        let now = web.clock().now();
        let opening = Opening::new(self.user, self.app.id.clone(), now, self.seed);
        let ctx = ctx::query::open(web.queue().stack(), web.apps(), opening).await?;
        // Published anew since the input was checked: the new version's handler runs, if it still has this query.
        let app = ctx.app().clone();
        let action = app.action(self.action)?;
        let run = Run {
            bundle: &app.code,
            entry: action.handler(),
            input: self.input,
            facts: &ctx.facts(None),
            limits: facts::limits(action),
            seed: self.seed,
            now,
        };
        let ended = web.sandbox().run(run, &ctx).await;
        Ok(ended.map_err(CtxError::from)?.value)
    }
}
