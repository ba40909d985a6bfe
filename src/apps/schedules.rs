//! What a manifest says about the clock, as schedules of each installation: written in the transaction that installs or
//! publishes, so that an app and its schedules are never of two versions.
//!
//! A schedule whose time or switch is a setting follows the setting: without a time, or switched off, it is there and off.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::Error;
use crate::{
    model::{
        clock::Clock,
        id::{ScheduleId, UserId},
        manifest::{Manifest, Period, Schedule},
        schedule::{ACTION_KIND, Clockwork, Decided, Fault, Origin, Wanted},
        zone,
    },
    store::schedules::{self, Installed},
};

/// Installations written by one statement.
const PAGE: i64 = 500;
/// So many failed jobs in a row pause a schedule of an app: its author has to look.
pub const PAUSE_AFTER: u32 = 10;
/// What stands for a time that a setting does not name: the schedule is off.
const NO_TIME: &str = "0 0 * * *";

/// Makes the schedules of `manifest`'s installations what it says: of all, or of `only` one user.
pub(super) async fn declare(db: &mut PgConnection, manifest: &Manifest, only: Option<UserId>) -> Result<(), Error> {
    let app = &manifest.metadata.id;
    let names: Vec<String> = manifest.schedules.iter().map(|schedule| schedule.id.clone()).collect();
    let (now, _) = schedules::here(&mut *db, None).await?;
    let mut after = None;
    loop {
        let page = schedules::installed(&mut *db, app, (after, only), PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.user_id);
        let users: Vec<UserId> = page.iter().map(|installed| installed.user_id).collect();
        schedules::delete_undeclared(&mut *db, app, &users, &names).await?;
        let mut rows = Vec::with_capacity(page.len() * names.len());
        for installed in &page {
            for schedule in &manifest.schedules {
                rows.push(decided(manifest, schedule, installed, now)?);
            }
        }
        schedules::upsert(&mut *db, &rows).await?;
    }
}

fn decided(
    manifest: &Manifest,
    schedule: &Schedule,
    installed: &Installed,
    now: DateTime<Utc>,
) -> Result<Decided, Error> {
    let unreadable = |faults: Vec<Fault>| {
        let reasons: Vec<String> = faults.into_iter().map(|fault| fault.message).collect();
        Error::Unreadable {
            app: manifest.metadata.id.clone(),
            reason: format!("schedule `{}`: {}", schedule.id, reasons.join("; ")),
        }
    };
    let (clockwork, no_time) = clockwork(schedule, &installed.config);
    let wanted = Wanted {
        user_id: Some(installed.user_id),
        app_id: Some(manifest.metadata.id.clone()),
        name: Some(schedule.id.clone()),
        args: json!({ "action": schedule.action, "input": schedule.input.clone().unwrap_or_default() }),
        timezone: schedule.timezone.clone(),
        jitter: schedule.jitter.map_or(Duration::ZERO, Period::duration),
        catch_up: schedule.catch_up,
        overlap: schedule.overlap,
        pause_after: Some(PAUSE_AFTER),
        off: switched_off(schedule, &installed.config).or(no_time),
        ..Wanted::new(Origin::Manifest, ACTION_KIND, clockwork)
    };
    wanted.decide(ScheduleId::new(&Now(now)), now, Some(&installed.timezone)).map_err(unreadable)
}

/// The clockwork, and why it is off where its time is missing.
fn clockwork(schedule: &Schedule, settings: &Value) -> (Clockwork, Option<String>) {
    if let Some(every) = schedule.every {
        return (Clockwork::Every(every.duration()), None);
    }
    if let Some(line) = &schedule.cron {
        return (Clockwork::Cron(line.clone()), None);
    }
    let key = schedule.at_setting.as_deref().unwrap_or_default();
    let time = settings.get(key).and_then(Value::as_str).and_then(|text| zone::time(text).ok());
    match time {
        Some(time) => (Clockwork::Cron(time.format("%-M %-H * * *").to_string()), None),
        None => (Clockwork::Cron(NO_TIME.to_owned()), Some(format!("the setting `{key}` has no time"))),
    }
}

fn switched_off(schedule: &Schedule, settings: &Value) -> Option<String> {
    let key = schedule.enabled_by.as_deref()?;
    let on = settings.get(key).and_then(Value::as_bool).unwrap_or(false);
    (!on).then(|| format!("the setting `{key}` is off"))
}

/// The database's clock, at the moment of the transaction.
struct Now(DateTime<Utc>);

impl Clock for Now {
    fn now(&self) -> DateTime<Utc> {
        self.0
    }
}
