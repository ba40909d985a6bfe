//! Identifiers as types of their own, so that a user's id cannot be passed where a job's is meant.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::{NoContext, Timestamp, Uuid};

use super::clock::Clock;

macro_rules! uuid_id {
    ($(#[doc = $doc:literal] $name:ident;)+) => {$(
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh UUIDv7 (RFC 9562): ordered by the clock's time, random below it.
            pub fn new(clock: &dyn Clock) -> Self {
                Self(uuid_v7(clock))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(s: &str) -> Result<Self, uuid::Error> {
                s.parse().map(Self)
            }
        }
    )+};
}

uuid_id! {
    /// A durable request for one kind of work.
    JobId;
    /// A person who uses this Krilin.
    UserId;
    /// One start of a worker process. A restarted worker gets a new one, so its orphans are recognisable.
    WorkerId;
    /// An API token.
    TokenId;
    /// Something that runs again and again, or once at a time of its own.
    ScheduleId;
    /// The right to finish one claimed job. Each claim has its own.
    LeaseToken;
}

fn uuid_v7(clock: &dyn Clock) -> Uuid {
    let now = clock.now();
    let secs = u64::try_from(now.timestamp()).unwrap_or(0);
    Uuid::new_v7(Timestamp::from_unix(NoContext, secs, now.timestamp_subsec_nanos()))
}

/// The longest app id, so that `app_{app_id}_{table}` stays within Postgres' 63 bytes.
pub const APP_ID_MAX_LENGTH: usize = 30;

/// An app's id in kebab case: directory, URL segment and table prefix alike.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct AppId(Arc<str>);

/// Why a text is no app id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an app id: two to 30 lowercase letters, digits and single hyphens, beginning with a letter")]
pub struct AppIdError(String);

impl AppId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for AppId {
    type Err = AppIdError;

    fn from_str(s: &str) -> Result<Self, AppIdError> {
        let parts_hold = s
            .split('-')
            .all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
        let starts_with_letter = s.starts_with(|c: char| c.is_ascii_lowercase());
        if parts_hold && starts_with_letter && (2..=APP_ID_MAX_LENGTH).contains(&s.len()) {
            Ok(Self(s.into()))
        } else {
            Err(AppIdError(s.to_owned()))
        }
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppId({})", self.0)
    }
}

impl<'de> Deserialize<'de> for AppId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::AppId;

    #[test]
    fn an_app_id_is_kebab_case_and_at_most_thirty_bytes() {
        for good in ["habit-tracker", "a1", "x-2-y", &"a".repeat(30)] {
            assert!(good.parse::<AppId>().is_ok(), "{good}");
        }
        for bad in ["", "a", "1a", "Habit", "a_b", "-ab", "ab-", "a--b", "a b", &"a".repeat(31)] {
            assert!(bad.parse::<AppId>().is_err(), "{bad}");
        }
    }
}
