//! A person who uses this Krilin. Refuses a time zone the IANA database does not know and an address without an `@`.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::id::UserId;

/// The longest name of a user or token, in characters.
pub const NAME_MAX_LENGTH: usize = 200;
/// The longest e-mail address, in bytes (RFC 5321, 4.5.3.1.3, less the angle brackets).
pub const EMAIL_MAX_LENGTH: usize = 254;
/// The longest language tag, in bytes (RFC 5646, 4.4.1).
pub const LOCALE_MAX_LENGTH: usize = 35;

/// The day on which a user's week begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeekStart {
    /// As in ISO 8601.
    Monday,
    /// As in North America and elsewhere.
    Sunday,
}

impl WeekStart {
    /// The name in JSON, SQL and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Monday => "monday",
            Self::Sunday => "sunday",
        }
    }
}

impl fmt::Display for WeekStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for WeekStart {
    type Err = UserError;

    fn from_str(text: &str) -> Result<Self, UserError> {
        match text {
            "monday" => Ok(Self::Monday),
            "sunday" => Ok(Self::Sunday),
            other => Err(UserError::WeekStart(other.to_owned())),
        }
    }
}

/// A user as stored.
#[derive(Debug, Clone, Serialize)]
pub struct User {
    /// Who.
    pub id: UserId,
    /// What they are called.
    pub name: String,
    /// Their address in lowercase, where they gave one.
    pub email: Option<String>,
    /// The zone in which their days begin and end.
    pub timezone: Tz,
    /// Their language, as a BCP 47 tag.
    pub locale: String,
    /// The day on which their week begins.
    pub week_start: WeekStart,
    /// When they were added.
    pub created_at: DateTime<Utc>,
}

/// What is needed to add a user; see [`NewUser::parse`].
#[derive(Debug, Clone)]
pub struct NewUser {
    name: String,
    email: Option<String>,
    timezone: Tz,
    /// Their language, as a BCP 47 tag; `en` unless set.
    pub locale: String,
    /// The day on which their week begins; Monday unless set.
    pub week_start: WeekStart,
}

/// Why somebody cannot be added as a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserError {
    /// Empty or too long.
    #[error("a name has 1 to {NAME_MAX_LENGTH} characters")]
    Name,
    /// No address.
    #[error("`{0}` is not an e-mail address")]
    Email(String),
    /// Not in the IANA database.
    #[error("`{0}` is not an IANA time zone; give one such as Europe/Berlin or America/New_York")]
    Timezone(String),
    /// Neither day.
    #[error("a week starts on `monday` or `sunday`, not on `{0}`")]
    WeekStart(String),
}

impl NewUser {
    /// Checks the parts and brings them into their stored form: the name trimmed, the address in lowercase.
    pub fn parse(name: &str, email: Option<&str>, timezone: &str) -> Result<Self, UserError> {
        let name = name.trim();
        if name.is_empty() || name.chars().count() > NAME_MAX_LENGTH {
            return Err(UserError::Name);
        }
        Ok(Self {
            name: name.to_owned(),
            email: email.map(parse_email).transpose()?,
            timezone: timezone.parse().map_err(|_| UserError::Timezone(timezone.to_owned()))?,
            locale: "en".to_owned(),
            week_start: WeekStart::Monday,
        })
    }

    /// What they are called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Their address in lowercase.
    pub fn email(&self) -> Option<&str> {
        self.email.as_deref()
    }

    /// The zone in which their days begin and end.
    pub fn timezone(&self) -> Tz {
        self.timezone
    }
}

/// Only what every address has: something, an `@`, something, no white space. Whether mail arrives, only mail can tell.
fn parse_email(text: &str) -> Result<String, UserError> {
    let email = text.trim().to_lowercase();
    let plausible = email.split_once('@').is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
        && !email.contains(char::is_whitespace)
        && email.len() <= EMAIL_MAX_LENGTH;
    if plausible { Ok(email) } else { Err(UserError::Email(text.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::{NewUser, UserError};

    #[test]
    fn a_user_has_a_name_a_real_zone_and_at_most_one_spelling_of_the_address() {
        let user = NewUser::parse(" Ada ", Some("Ada@Example.ORG"), "Europe/Berlin").unwrap();
        assert_eq!((user.name(), user.email()), ("Ada", Some("ada@example.org")));
        assert_eq!(
            NewUser::parse("Ada", None, "Mars/Olympus").unwrap_err(),
            UserError::Timezone("Mars/Olympus".into())
        );
        assert_eq!(NewUser::parse("Ada", Some("ada"), "UTC").unwrap_err(), UserError::Email("ada".into()));
        assert_eq!(NewUser::parse("  ", None, "UTC").unwrap_err(), UserError::Name);
    }
}
