//! Apps as bundles of a manifest and code: how they are published, installed and loaded. Refuses to run code; that is the
//! sandbox's.

pub mod bundle;
pub mod check;
pub mod design;
pub mod install;
pub mod loaded;
pub mod migrate;
pub mod plan;
pub mod publish;
pub mod schedules;
pub mod types;

use std::time::Duration;

use serde_json::json;

use crate::{
    model::{
        error::{Code, CtxError},
        id::AppId,
    },
    store,
};

/// What can go wrong with an app on its way from a directory to a user.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody has published it.
    #[error("`{0}` is not published here")]
    NotPublished(AppId),
    /// The user does not have it.
    #[error("`{0}` is not installed")]
    NotInstalled(AppId),
    /// It needs apps that the user does not have, or has in another version.
    #[error("`{app}` needs {}; install first", missing.join(", "))]
    Missing {
        /// Which app needs them.
        app: AppId,
        /// What it needs, each with its range of versions.
        missing: Vec<String>,
    },
    /// Other installed apps cannot do without it.
    #[error("{} of this user cannot do without `{app}`; remove first", dependants.join(", "))]
    Held {
        /// Which app was to go.
        app: AppId,
        /// Who needs it.
        dependants: Vec<String>,
    },
    /// The version is there already, with other content.
    #[error("`{app}` {version} is published already with another content; raise `metadata.version`")]
    VersionTaken {
        /// Which app.
        app: AppId,
        /// Which version.
        version: String,
    },
    /// A newer version is in force.
    #[error(
        "`{app}` {current} is in force and {version} is older; say that the older one is meant, or raise the version"
    )]
    VersionOlder {
        /// Which app.
        app: AppId,
        /// What was to be published.
        version: String,
        /// What is in force.
        current: String,
    },
    /// The tables cannot follow the manifest. The old version stays in force.
    #[error("`{app}` {version} cannot be published: {}", reasons.join("; "))]
    Refused {
        /// Which app.
        app: AppId,
        /// Which version.
        version: String,
        /// Every reason, each with what to write in the manifest.
        reasons: Vec<String>,
    },
    /// Settings or grants that the manifest does not know.
    #[error("{0}")]
    Invalid(String),
    /// A table is in use and did not become free in time.
    #[error("the tables of `{0}` are in use just now; nothing was changed, try again")]
    Busy(AppId),
    /// What is stored cannot be read by this binary.
    #[error("the stored manifest of `{app}` cannot be read: {reason}")]
    Unreadable {
        /// Which app.
        app: AppId,
        /// Why.
        reason: String,
    },
    /// Something below.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl From<Error> for CtxError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        match error {
            Error::NotPublished(_) => Self::new(Code::NotFound, message),
            Error::NotInstalled(_) => Self::new(Code::NotInstalled, message),
            Error::Missing { missing, .. } => {
                Self::new(Code::NotInstalled, message).with_details(json!({"missing": missing}))
            }
            Error::Held { dependants, .. } => {
                Self::new(Code::Conflict, message).with_details(json!({"dependants": dependants}))
            }
            Error::VersionTaken { .. } | Error::VersionOlder { .. } => Self::new(Code::Conflict, message),
            Error::Refused { reasons, .. } => {
                Self::new(Code::ValidationFailed, message).with_details(json!({"reasons": reasons}))
            }
            Error::Invalid(_) => Self::new(Code::ValidationFailed, message),
            Error::Busy(_) => Self::new(Code::Unavailable, message).with_retry_after(Duration::from_secs(1)),
            Error::Unreadable { .. } => {
                tracing::error!(error = message, "an app cannot be loaded");
                Self::new(Code::Internal, "something went wrong on our side")
            }
            Error::Store(error) => error.into(),
        }
    }
}
