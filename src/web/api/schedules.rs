//! Schedules: make, look, pause, resume, trigger, cancel; the next fires and the ledger of those that were. Refuses to show
//! one user another's, and to change what an app's manifest declares beyond pausing it.

use axum::{
    extract::{Path, State},
    http::{StatusCode, Uri, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{
    model::{
        duration::HumanDuration,
        id::{JobId, ScheduleId},
        schedule::{ACTION_KIND, CatchUp, Clockwork, Fault, Origin, Overlap, State as ScheduleState, Upcoming, Wanted},
        token::Scope,
    },
    schedule::{Error, Filter, Occurred, Row},
    web::{
        Web,
        auth::Caller,
        body::{self, JsonBytes, json},
        error::{Document, FieldError, Problem},
        order::Order,
        page,
        schedule::{Occurrence, Schedule},
        trace::Trace,
        wanted,
        wish::Wishes,
    },
};

/// Why a schedule is paused that its user paused.
const PAUSED_BY_USER: &str = "paused by its user";

/// The job that a schedule makes.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduledJob {
    /// The kind, such as `app_action`.
    pub kind: String,
    /// The app it works for.
    pub app_id: Option<String>,
    /// What it is given; for `app_action` an object of `action` and `input`.
    pub args: Option<serde_json::Value>,
}

/// A schedule as a caller wants it. Exactly one of `cron`, `every` and `at`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewSchedule {
    /// One's own word for it; one of this name and app is replaced. Its id, unless given.
    pub name: Option<String>,
    /// What it makes.
    pub job: ScheduledJob,
    /// Five fields: minute, hour, day of the month, month, day of the week.
    pub cron: Option<String>,
    /// Every so long, such as `15m`.
    #[schema(value_type = Option<String>)]
    pub every: Option<HumanDuration>,
    /// At this instant, once.
    pub at: Option<DateTime<Utc>>,
    /// `user`, which is the default, or an IANA zone.
    pub timezone: Option<String>,
    /// No fire before this instant.
    pub starts_at: Option<DateTime<Utc>>,
    /// No fire after this instant.
    pub ends_at: Option<DateTime<Utc>>,
    /// The longest delay of a fire; always the same one for the same schedule.
    #[schema(value_type = Option<String>)]
    pub jitter: Option<HumanDuration>,
    /// What becomes of missed fires; `one` unless given.
    pub catch_up: Option<CatchUp>,
    /// What happens when the job before has not ended; `skip` unless given.
    pub overlap: Option<Overlap>,
    /// The most jobs it makes.
    pub max_runs: Option<u32>,
    /// Pause after so many failed jobs in a row.
    pub pause_after: Option<u32>,
}

/// One schedule as an answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ScheduleAnswer {
    /// The schedule.
    pub schedule: Schedule,
}

/// A page of schedules, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SchedulesAnswer {
    /// The schedules.
    pub schedules: Vec<Schedule>,
    /// What to send as `cursor` for the page after this one; none after the last.
    #[schema(value_type = Option<uuid::Uuid>)]
    pub next_cursor: Option<ScheduleId>,
}

/// The next fires as an answer; none while the schedule is not active.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct FiresAnswer {
    /// Ten at most.
    pub fires: Vec<Upcoming>,
}

/// A page of the ledger, newest first.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct OccurrencesAnswer {
    /// Its rows.
    pub occurrences: Vec<Occurrence>,
    /// What to send as `cursor` for the page after this one; none after the last.
    pub next_cursor: Option<DateTime<Utc>>,
}

/// A fire by hand as an answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct TriggeredAnswer {
    /// The job; `Location` says where to look.
    #[schema(value_type = uuid::Uuid)]
    pub job_id: JobId,
}

/// Makes a schedule, or replaces one's own of the same name and app.
#[utoipa::path(post, path = "/api/v1/schedules", tag = "schedules", operation_id = "create_schedule", request_body = NewSchedule,
    responses((status = 201, description = "Made; `Location` says where to look", body = ScheduleAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn create(
    State(web): State<Web>,
    caller: Caller,
    (wishes, trace): (Wishes, Trace),
    JsonBytes(body): JsonBytes,
) -> Result<Response, Problem> {
    caller.may(Scope::JobsWrite)?;
    let wanted: NewSchedule = body::parse(&body, "")?;
    let clockwork = clockwork(&wanted)?;
    let job = wanted::Wanted {
        kind: wanted.job.kind,
        app_id: wanted.job.app_id,
        args: wanted.job.args,
        ..wanted::Wanted::default()
    };
    let order = Order { web: &web, caller: &caller, wishes: &wishes, trace, body: &body };
    let job = order.check(job, "/job", 0).await?.map_err(Problem::invalid)?;
    let defaults = Wanted::new(Origin::User, &job.kind, clockwork);
    let row = web.schedules().create(Wanted {
        user_id: Some(caller.user_id()),
        app_id: job.app_id,
        name: wanted.name,
        args: job.args,
        timezone: wanted.timezone.unwrap_or(defaults.timezone),
        starts_at: wanted.starts_at,
        ends_at: wanted.ends_at,
        jitter: wanted.jitter.map_or(defaults.jitter, |jitter| jitter.0),
        catch_up: wanted.catch_up.unwrap_or_default(),
        overlap: wanted.overlap.unwrap_or_default(),
        max_runs: wanted.max_runs,
        pause_after: wanted.pause_after,
        ..defaults
    });
    let row = row.await.map_err(problem)?;
    let location = format!("/api/v1/schedules/{}", row.id);
    let answer = json(&ScheduleAnswer { schedule: row.into() })?;
    let headers = [(header::CONTENT_TYPE, "application/json".to_owned()), (header::LOCATION, location)];
    Ok((StatusCode::CREATED, headers, answer).into_response())
}

fn clockwork(wanted: &NewSchedule) -> Result<Clockwork, Problem> {
    match (&wanted.cron, wanted.every, wanted.at) {
        (Some(line), None, None) => Ok(Clockwork::Cron(line.clone())),
        (None, Some(every), None) => Ok(Clockwork::Every(every.0)),
        (None, None, Some(at)) => Ok(Clockwork::Once(at)),
        _ => {
            let message = "a schedule has one of `cron`, `every` and `at`".to_owned();
            Err(Problem::invalid(vec![FieldError { pointer: String::new(), message }]))
        }
    }
}

/// Which schedules to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Page {
    /// Only of this app.
    app_id: Option<String>,
    /// Only in this state.
    state: Option<ScheduleState>,
    /// The `next_cursor` of the page before.
    #[param(value_type = Option<uuid::Uuid>)]
    cursor: Option<ScheduleId>,
    /// How many at most; 50 unless said, 100 at most.
    limit: Option<u32>,
}

/// Lists one's schedules, newest first.
#[utoipa::path(get, path = "/api/v1/schedules", tag = "schedules", operation_id = "list_schedules", params(Page),
    responses((status = 200, description = "A page of schedules", body = SchedulesAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn list(State(web): State<Web>, caller: Caller, uri: Uri) -> Result<Response, Problem> {
    caller.may(Scope::JobsRead)?;
    let page: Page = page::asked(&uri)?;
    let limit = page::length(page.limit)?;
    let filter =
        Filter { user_id: Some(caller.user_id()), app_id: page.app_id, state: page.state, ..Filter::default() };
    let mut rows = web.schedules().list(&filter, page.cursor, limit + 1).await.map_err(problem)?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| more).map(|row| row.id);
    answer(&SchedulesAnswer { schedules: rows.into_iter().map(Schedule::from).collect(), next_cursor })
}

/// Looks at a schedule.
#[utoipa::path(get, path = "/api/v1/schedules/{id}", tag = "schedules", operation_id = "read_schedule",
    params(("id" = uuid::Uuid, Path, description = "The schedule")),
    responses((status = 200, description = "The schedule", body = ScheduleAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn read(State(web): State<Web>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.may(Scope::JobsRead)?;
    answer(&ScheduleAnswer { schedule: find(&web, &caller, &id).await?.into() })
}

/// Shows the next ten fires, with the jumps of the schedule's clock marked.
#[utoipa::path(get, path = "/api/v1/schedules/{id}/next", tag = "schedules", operation_id = "read_next_fires",
    params(("id" = uuid::Uuid, Path, description = "The schedule")),
    responses((status = 200, description = "The fires", body = FiresAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn next(State(web): State<Web>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.may(Scope::JobsRead)?;
    let row = find(&web, &caller, &id).await?;
    answer(&FiresAnswer { fires: web.schedules().upcoming(&row).await.map_err(problem)? })
}

/// Which rows of the ledger to list.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LedgerPage {
    /// The `next_cursor` of the page before.
    cursor: Option<DateTime<Utc>>,
    /// How many at most; 50 unless said, 100 at most.
    limit: Option<u32>,
}

/// Lists what a schedule's fires came to, newest first.
#[utoipa::path(get, path = "/api/v1/schedules/{id}/occurrences", tag = "schedules", operation_id = "list_occurrences",
    params(("id" = uuid::Uuid, Path, description = "The schedule"), LedgerPage),
    responses((status = 200, description = "A page of the ledger", body = OccurrencesAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn occurrences(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Response, Problem> {
    caller.may(Scope::JobsRead)?;
    let page: LedgerPage = page::asked(&uri)?;
    let limit = page::length(page.limit)?;
    let row = find(&web, &caller, &id).await?;
    let mut rows: Vec<Occurred> = web.schedules().ledger(row.id, page.cursor, limit + 1).await.map_err(problem)?;
    let more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    let next_cursor = rows.last().filter(|_| more).map(|row| row.nominal_at);
    answer(&OccurrencesAnswer { occurrences: rows.into_iter().map(Occurrence::from).collect(), next_cursor })
}

/// Lets a schedule rest; what falls into the pause is skipped.
#[utoipa::path(post, path = "/api/v1/schedules/{id}/pause", tag = "schedules", operation_id = "pause_schedule",
    params(("id" = uuid::Uuid, Path, description = "The schedule")),
    responses((status = 200, description = "The schedule, paused", body = ScheduleAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn pause(State(web): State<Web>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.may(Scope::JobsWrite)?;
    let row = find(&web, &caller, &id).await?;
    web.schedules().pause(&row, PAUSED_BY_USER).await.map_err(problem)?;
    answer(&ScheduleAnswer { schedule: find(&web, &caller, &id).await?.into() })
}

/// Lets a paused or parked schedule go on.
#[utoipa::path(post, path = "/api/v1/schedules/{id}/resume", tag = "schedules", operation_id = "resume_schedule",
    params(("id" = uuid::Uuid, Path, description = "The schedule")),
    responses((status = 200, description = "The schedule, active", body = ScheduleAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn resume(State(web): State<Web>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.may(Scope::JobsWrite)?;
    let row = find(&web, &caller, &id).await?;
    web.schedules().resume(&row).await.map_err(problem)?;
    answer(&ScheduleAnswer { schedule: find(&web, &caller, &id).await?.into() })
}

/// Fires now, whatever the clock says.
#[utoipa::path(post, path = "/api/v1/schedules/{id}/trigger", tag = "schedules", operation_id = "trigger_schedule",
    params(("id" = uuid::Uuid, Path, description = "The schedule")),
    responses((status = 202, description = "A job was made", body = TriggeredAnswer),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn trigger(State(web): State<Web>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.may(Scope::JobsWrite)?;
    let row = find(&web, &caller, &id).await?;
    if row.kind == ACTION_KIND {
        caller.may(Scope::AppsCall)?;
    }
    let job_id = web.schedules().trigger(&row).await.map_err(problem)?;
    let location = [(header::LOCATION, format!("/api/v1/jobs/{job_id}"))];
    Ok((StatusCode::ACCEPTED, location, answer(&TriggeredAnswer { job_id })?).into_response())
}

/// Forgets a schedule; its jobs stay. One that a manifest declares can be paused instead.
#[utoipa::path(post, path = "/api/v1/schedules/{id}/cancel", tag = "schedules", operation_id = "cancel_schedule",
    params(("id" = uuid::Uuid, Path, description = "The schedule")),
    responses((status = 204, description = "It is gone"),
        (status = "4XX", description = "A problem", body = Document, content_type = "application/problem+json")))]
pub async fn cancel(State(web): State<Web>, caller: Caller, Path(id): Path<String>) -> Result<Response, Problem> {
    caller.may(Scope::JobsWrite)?;
    let row = find(&web, &caller, &id).await?;
    if row.origin == Origin::Manifest.as_str() {
        let message = "the app's manifest declares this schedule; pause it, or remove the app".to_owned();
        return Err(problem(Error::State(message)));
    }
    web.schedules().cancel(&row).await.map_err(problem)?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn find(web: &Web, caller: &Caller, id: &str) -> Result<Row, Problem> {
    let unknown = || Problem::not_found(format!("there is no schedule `{id}`"));
    let known: ScheduleId = id.parse().map_err(|_| unknown())?;
    match web.schedules().get(known, Some(caller.user_id())).await {
        Err(Error::NotFound) => Err(unknown()),
        row => row.map_err(problem),
    }
}

fn problem(error: Error) -> Problem {
    match error {
        Error::Unfit(faults) => {
            let field = |Fault { field, message }| FieldError { pointer: format!("/{field}"), message };
            Problem::invalid(faults.into_iter().map(field).collect())
        }
        other => crate::model::error::CtxError::from(other).into(),
    }
}

fn answer<T: Serialize>(answer: &T) -> Result<Response, Problem> {
    Ok(([(header::CONTENT_TYPE, "application/json")], json(answer)?).into_response())
}
