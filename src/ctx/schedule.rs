//! `ctx.schedule`: what an app lets run by the clock, for its user. The rows are written in the pass's own transaction, so a
//! schedule is there if and only if the action that made it is done.
//!
//! An id is the app's own word: of one installation, one id is one schedule. Refuses to touch what the manifest declares,
//! and more than [`DYNAMIC_MAX`] schedules beside it.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json, value::RawValue};

use super::{
    dispatch::Touch,
    pass::{Pass, World},
    refusal::{invalid, over},
    table::{options, raw},
};
use crate::{
    apps::schedules::PAUSE_AFTER,
    model::{
        error::{Code, CtxError},
        id::ScheduleId,
        manifest::{ActionKind, Period},
        schedule::{ACTION_KIND, Clockwork, Fault, Origin, State, USER_ZONE, Wanted},
        zone,
    },
    store::{
        self,
        schedules::{self, Row},
    },
};

/// The methods there are.
pub(super) const METHODS: [(&str, &str, Touch); 4] = [
    ("schedule", "create", Touch::Writes),
    ("schedule", "once", Touch::Writes),
    ("schedule", "list", Touch::Reads),
    ("schedule", "cancel", Touch::Writes),
];

/// The most schedules that an app's code may have for one user.
const DYNAMIC_MAX: usize = 20;
/// Options of `create`; `once` has the first two.
const OPTIONS: [&str; 5] = ["id", "input", "timezone", "catch_up", "overlap"];

/// One call.
pub(super) struct Clock<'a> {
    pub(super) world: &'a World,
    pub(super) pass: &'a mut Pass,
    pub(super) about: String,
}

impl Clock<'_> {
    pub(super) async fn answer(&mut self, method: &str, args: &[Value]) -> Result<Box<RawValue>, CtxError> {
        match method {
            "create" => self.create(args).await,
            "once" => self.once(args).await,
            "list" => self.list().await,
            _ => self.cancel(args.first()).await,
        }
    }

    /// `create(cron, action, {id, input, timezone, catch_up, overlap})` gives `{id, next_run_at}`.
    async fn create(&mut self, args: &[Value]) -> Result<Box<RawValue>, CtxError> {
        let Some(line) = args.first().and_then(Value::as_str) else {
            return Err(self.wrong("", "the first argument must be a cron line, such as `0 18 * * SUN`"));
        };
        let given = options(&self.about, args.get(2), &OPTIONS)?;
        let mut wanted = self.wanted(Clockwork::Cron(line.to_owned()), args.get(1), &given)?;
        if let Some(zone) = self.word(&given, "timezone")? {
            wanted.timezone = zone;
        }
        if let Some(catch_up) = self.word(&given, "catch_up")? {
            wanted.catch_up = catch_up.parse().map_err(|message: String| self.wrong("/catch_up", message))?;
        }
        if let Some(overlap) = self.word(&given, "overlap")? {
            wanted.overlap = overlap.parse().map_err(|message: String| self.wrong("/overlap", message))?;
        }
        let (name, next) = self.write(wanted).await?;
        Ok(json_text(&json!({ "id": name, "next_run_at": next.map(zone::instant_text) })))
    }

    /// `once(at | {in}, action, {id, input})` gives `{id}`.
    async fn once(&mut self, args: &[Value]) -> Result<Box<RawValue>, CtxError> {
        let at = self.moment(args.first().unwrap_or(&Value::Null))?;
        let given = options(&self.about, args.get(2), &OPTIONS[..2])?;
        let wanted = self.wanted(Clockwork::Once(at), args.get(1), &given)?;
        let (name, _) = self.write(wanted).await?;
        Ok(json_text(&json!({ "id": name })))
    }

    /// `list()` gives the installation's schedules, those of the manifest too, by id.
    async fn list(&mut self) -> Result<Box<RawValue>, CtxError> {
        let list: Vec<Value> = self.rows().await?.iter().map(listed).collect();
        Ok(json_text(&Value::Array(list)))
    }

    /// `cancel(id)`: false when there is no such schedule.
    async fn cancel(&mut self, id: Option<&Value>) -> Result<Box<RawValue>, CtxError> {
        let Some(name) = id.and_then(Value::as_str) else {
            return Err(self.wrong("", "the first argument must be the id of a schedule"));
        };
        let rows = self.rows().await?;
        let Some(row) = rows.iter().find(|row| row.name == name) else { return Ok(json_text(&json!(false))) };
        self.demand_own(row)?;
        let gone = schedules::delete(&mut *self.pass.transaction, row.id).await;
        Ok(json_text(&json!(self.unbroken(gone)?)))
    }

    /// An instant, or `{in: "5m"}` from the job's.
    fn moment(&self, value: &Value) -> Result<DateTime<Utc>, CtxError> {
        let after = value.as_object().filter(|when| when.len() == 1).and_then(|when| when.get("in"));
        match (value.as_str(), after.and_then(Value::as_str)) {
            (Some(text), _) => zone::instant(text).map_err(|error| self.wrong("", error.to_string())),
            (None, Some(length)) => {
                let period: Period = length.parse().map_err(|error| self.wrong("/in", format!("{error}")))?;
                let delta = TimeDelta::from_std(period.duration()).ok();
                let at = delta.and_then(|delta| self.world.now.checked_add_signed(delta));
                at.ok_or_else(|| self.wrong("/in", "that is too far away"))
            }
            _ => Err(self.wrong("", "the first argument must be an instant, or `{ in: \"5m\" }`")),
        }
    }

    fn wanted(
        &self,
        clockwork: Clockwork,
        action: Option<&Value>,
        given: &Map<String, Value>,
    ) -> Result<Wanted, CtxError> {
        let app = &self.world.app;
        let Some(action) = action.and_then(Value::as_str) else {
            return Err(self.wrong("", "the second argument must be the name of an action"));
        };
        if app.action(action)?.kind == ActionKind::Query {
            return Err(self.wrong("", format!("`{action}` only reads; a schedule runs actions that change something")));
        }
        let mut input = given.get("input").cloned().unwrap_or_else(|| json!({}));
        app.check_input(action, &mut input)?;
        Ok(Wanted {
            user_id: Some(self.world.user),
            app_id: Some(app.id.clone()),
            name: self.word(given, "id")?,
            args: json!({ "action": action, "input": input }),
            pause_after: Some(PAUSE_AFTER),
            timezone: USER_ZONE.to_owned(),
            ..Wanted::new(Origin::App, ACTION_KIND, clockwork)
        })
    }

    async fn write(&mut self, mut wanted: Wanted) -> Result<(String, Option<DateTime<Utc>>), CtxError> {
        let id = ScheduleId(self.pass.chance.id(self.world.now));
        let name = wanted.name.get_or_insert_with(|| id.to_string()).clone();
        let rows = self.rows().await?;
        match rows.iter().find(|row| row.name == name) {
            Some(row) => self.demand_own(row)?,
            None if rows.iter().filter(|row| row.origin == Origin::App.as_str()).count() >= DYNAMIC_MAX => {
                return Err(over(format!("an app may have {DYNAMIC_MAX} schedules of its own for one user")));
            }
            None => {}
        }
        let here = schedules::here(&mut *self.pass.transaction, Some(self.world.user)).await;
        let (now, user_zone) = self.unbroken(here)?;
        let decided = wanted.decide(id, now, user_zone.as_deref()).map_err(|faults| self.faulty(&faults))?;
        let written = schedules::upsert(&mut *self.pass.transaction, std::slice::from_ref(&decided)).await;
        let written = self.unbroken(written)?;
        Ok((name, written.first().and_then(|(_, next)| *next)))
    }

    async fn rows(&mut self) -> Result<Vec<Row>, CtxError> {
        let app = self.world.app.id.clone();
        let rows = schedules::of_installation(&mut *self.pass.transaction, self.world.user, &app).await;
        self.unbroken(rows)
    }

    fn demand_own(&self, row: &Row) -> Result<(), CtxError> {
        if row.origin == Origin::App.as_str() {
            return Ok(());
        }
        let message = format!("{}: the schedule `{}` is not this code's to change", self.about, row.name);
        Err(CtxError::new(Code::PermissionDenied, message))
    }

    fn word(&self, given: &Map<String, Value>, key: &str) -> Result<Option<String>, CtxError> {
        match given.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(self.wrong(&format!("/{key}"), format!("`{key}` must be a text"))),
        }
    }

    fn wrong(&self, pointer: &str, message: impl Into<String>) -> CtxError {
        invalid(&self.about, pointer, message)
    }

    fn faulty(&self, faults: &[Fault]) -> CtxError {
        match faults.first() {
            Some(fault) => self.wrong(&format!("/{}", fault.field), fault.message.as_str()),
            None => self.wrong("", "that cannot be meant"),
        }
    }

    /// As [`super::table::Table::unbroken`]: a statement that failed has ended the transaction.
    fn unbroken<T>(&mut self, result: Result<T, store::Error>) -> Result<T, CtxError> {
        result.map_err(|error| {
            let error = if error.is_data_exception() {
                self.wrong("", "Postgres cannot keep one of these values")
            } else {
                error.into()
            };
            self.pass.broken = Some(error.clone());
            error
        })
    }
}

fn listed(row: &Row) -> Value {
    json!({
        "id": row.name,
        "action": row.args["action"],
        "next_run_at": row.next_at.map(zone::instant_text),
        "paused": row.state != State::Active.as_str(),
    })
}

fn json_text(value: &Value) -> Box<RawValue> {
    raw(value.to_string())
}
