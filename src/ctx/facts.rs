//! What the sandbox is told and allowed for a pass: the fixed part of `ctx`, and the limits of the action's manifest.
//!
//! Refuses to tell the user's e-mail address: there is no permission by which an app could ask for it.

use super::Ctx;
use crate::{
    model::manifest::Action,
    sandbox::{Facts, JobFacts, Limits, UserFacts},
};

/// Bytes of a manifest's megabyte.
const MEGABYTE: u64 = 1 << 20;

impl Ctx {
    /// The fixed part of `ctx` for this pass; `job` is none where no job runs.
    pub fn facts(&self, job: Option<JobFacts>) -> Facts {
        let person = self.person();
        Facts {
            user: UserFacts {
                id: person.id.to_string(),
                name: person.name.clone(),
                email: None,
                timezone: person.timezone.name().to_owned(),
                locale: person.locale.clone(),
                week_start: person.week_start,
            },
            app_id: self.app().id.to_string(),
            app_version: self.app().version.clone(),
            job,
            settings: self.settings().clone(),
        }
    }
}

/// What one pass of `action` may use: its manifest's numbers, and the defaults where it has none.
pub fn limits(action: &Action) -> Limits {
    let wall = action.timeout.duration();
    Limits { wall, memory_bytes: u64::from(action.memory_mb) * MEGABYTE, ..Limits::default() }.capped()
}
