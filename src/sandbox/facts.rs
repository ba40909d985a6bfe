//! What a handler is told about the world it runs in: `ctx.user`, `ctx.app_id`, `ctx.job`, `ctx.settings`.

use serde::Serialize;
use serde_json::Value;

use crate::model::{
    schedule::Fire,
    user::{User, WeekStart},
};

/// The fixed part of `ctx`. It goes into the child; nothing of it is ever believed when it comes back.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// `ctx.user`
    pub user: UserFacts,
    /// `ctx.app_id`
    pub app_id: String,
    /// `ctx.app_version`
    pub app_version: String,
    /// `ctx.job`; none where no job runs (a `query` action).
    pub job: Option<JobFacts>,
    /// `ctx.settings`: the installation's values over the manifest's defaults; an object.
    pub settings: Value,
}

impl Facts {
    /// Nobody's: for code that runs without a user.
    pub fn nobody() -> Self {
        let user = UserFacts {
            id: String::new(),
            name: String::new(),
            email: None,
            timezone: "UTC".into(),
            locale: "en".into(),
            week_start: WeekStart::Monday,
        };
        let (app_id, app_version) = (String::new(), String::new());
        Self { user, app_id, app_version, job: None, settings: Value::Object(serde_json::Map::new()) }
    }
}

/// `ctx.user`
#[derive(Debug, Clone, Serialize)]
pub struct UserFacts {
    /// The user's id.
    pub id: String,
    /// What the user wants to be called.
    pub name: String,
    /// Present only where the app may see it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// An IANA zone name; `ctx.today()` and `ctx.time` use it.
    pub timezone: String,
    /// A BCP 47 tag.
    pub locale: String,
    /// `ctx.time.start_of_week` uses it.
    pub week_start: WeekStart,
}

impl From<&User> for UserFacts {
    /// A user without the e-mail address, which an app sees only where its permissions say so.
    fn from(user: &User) -> Self {
        Self {
            id: user.id.to_string(),
            name: user.name.clone(),
            email: None,
            timezone: user.timezone.name().to_owned(),
            locale: user.locale.clone(),
            week_start: user.week_start,
        }
    }
}

/// `ctx.job`
#[derive(Debug, Clone, Serialize)]
pub struct JobFacts {
    /// The job's id.
    pub id: String,
    /// From 1.
    pub attempt: u32,
    /// `user`, `agent`, `schedule`, `stream`, `app` or `hook`.
    pub trigger: String,
    /// The calling app, when an app called.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub caller_app: Option<String>,
    /// The fire, when a schedule triggered it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Fire>,
}
