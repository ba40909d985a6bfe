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
            /// A fresh UUIDv7 (RFC 9562): ordered by the clock's time to a quarter of a microsecond, random below it.
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
    /// The right to finish a claimed job. Each claim has its own.
    LeaseToken;
}

const NANOS_PER_MILLI: u32 = 1_000_000;
/// The version, where a UUID has it.
const VERSION_7: u8 = 0x70;

/// The twelve bits behind the millisecond are its fraction (method 3 of RFC 9562, section 6.2): what one caller makes one
/// after the other is in that order, also where a commit takes less than a millisecond.
fn uuid_v7(clock: &dyn Clock) -> Uuid {
    let now = clock.now();
    let (secs, nanos) = (u64::try_from(now.timestamp()).unwrap_or(0), now.timestamp_subsec_nanos());
    let mut bytes = Uuid::new_v7(Timestamp::from_unix(NoContext, secs, nanos)).into_bytes();
    // Below 4,096, so its high byte leaves the version's four bits free.
    let fraction = u64::from(nanos % NANOS_PER_MILLI) * 4_096 / u64::from(NANOS_PER_MILLI);
    let [.., high, low] = fraction.to_be_bytes();
    (bytes[6], bytes[7]) = (VERSION_7 | high, low);
    Uuid::from_bytes(bytes)
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
    use chrono::{DateTime, TimeDelta, Utc};

    use super::{AppId, JobId};
    use crate::model::clock::Clock;

    struct At(DateTime<Utc>);

    impl Clock for At {
        fn now(&self) -> DateTime<Utc> {
            self.0
        }
    }

    #[test]
    fn ids_of_one_millisecond_are_in_the_order_of_their_instants() {
        let first: DateTime<Utc> = "2026-11-28T12:00:00.123Z".parse().unwrap();
        let id = |nanos| JobId::new(&At(first + TimeDelta::nanoseconds(nanos)));
        let ids: Vec<JobId> = (0..1_000).map(|n| id(n * 1_000)).collect();
        assert!(ids.is_sorted());
        for id in [ids[0], ids[999]] {
            assert_eq!((id.0.get_version_num(), id.0.get_variant()), (7, uuid::Variant::RFC4122));
            let (secs, nanos) = id.0.get_timestamp().unwrap().to_unix();
            assert_eq!((secs, nanos / 1_000_000), (first.timestamp().unsigned_abs(), 123));
        }
        assert_ne!(id(0), id(0));
    }

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
