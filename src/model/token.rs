//! API tokens: what a program shows to act for a user, and what the token lets it do.
//!
//! The text is `krl_<id>_<secret>`: 32 hex digits that find the row and 64 (256 random bits) that prove the right to use
//! it. Only the secret's SHA-256 is stored. Refuses unknown scopes and any text of another shape.

use std::{fmt, str::FromStr};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{
    clock::Clock,
    id::{TokenId, UserId},
    secret::Secret,
};

/// What every token text begins with, so that a scanner for leaked secrets finds it.
pub const TOKEN_PREFIX: &str = "krl_";
/// The secret's length, in bytes.
const SECRET_BYTES: usize = 32;

macro_rules! scopes {
    ($($(#[doc = $doc:literal])+ $scope:ident $name:literal;)+) => {
        /// One thing a token may do. A token has at least one; each endpoint asks for exactly one.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum Scope { $($(#[doc = $doc])+ #[serde(rename = $name)] $scope,)+ }

        impl Scope {
            /// Every scope, in the order of the reference.
            pub const ALL: &[Self] = &[$(Self::$scope,)+];

            /// The name in JSON, SQL and on the command line.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$scope => $name,)+ }
            }

            /// What it allows, in one sentence.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$scope => concat!($($doc),+).trim_ascii_start(),)+ }
            }
        }
    };
}

scopes! {
    /// See and list one's jobs and schedules.
    JobsRead "jobs:read";
    /// Enqueue, cancel and retry jobs; make and change schedules.
    JobsWrite "jobs:write";
    /// Run actions of installed apps, which may change data.
    AppsCall "apps:call";
    /// Run queries of installed apps, which change nothing.
    AppsRead "apps:read";
    /// Read the figures of the whole server.
    MetricsRead "metrics:read";
    /// See all queues: what waits, what runs, what is set.
    QueuesRead "queues:read";
    /// Pause and resume queues and set their limits, for everybody.
    QueuesWrite "queues:write";
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a text is no scope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{wrong}` is not a scope; the scopes are {all}", wrong = .0, all = all_names())]
pub struct ScopeError(String);

fn all_names() -> String {
    Scope::ALL.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", ")
}

impl FromStr for Scope {
    type Err = ScopeError;

    fn from_str(text: &str) -> Result<Self, ScopeError> {
        Self::ALL.iter().copied().find(|scope| scope.as_str() == text).ok_or_else(|| ScopeError(text.to_owned()))
    }
}

/// A set of scopes; small enough to copy into every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes(u16);

impl Scopes {
    /// Whether `scope` is among them.
    pub fn contains(self, scope: Scope) -> bool {
        self.0 & (1 << scope as u8) != 0
    }

    /// Those that are in the set, in the order of the reference.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.iter().copied().filter(move |scope| self.contains(*scope))
    }
}

impl FromIterator<Scope> for Scopes {
    fn from_iter<I: IntoIterator<Item = Scope>>(scopes: I) -> Self {
        Self(scopes.into_iter().fold(0, |set, scope| set | 1 << scope as u8))
    }
}

impl Serialize for Scopes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

/// A token as stored, less its hash.
#[derive(Debug, Clone, Serialize)]
pub struct Token {
    /// Which.
    pub id: TokenId,
    /// For whom it speaks.
    pub user_id: UserId,
    /// What its owner calls it.
    pub name: String,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// From when on it is refused.
    pub expires_at: Option<DateTime<Utc>>,
    /// Since when it is refused.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was last used, to the minute.
    pub last_used_at: Option<DateTime<Utc>>,
}

/// The SHA-256 of a token's secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct SecretHash(pub [u8; 32]);

/// A token's text, taken apart.
#[derive(Clone)]
pub struct TokenText {
    /// Which token it claims to be.
    pub id: TokenId,
    secret: [u8; SECRET_BYTES],
}

impl TokenText {
    /// A new token with a fresh id and 256 bits from the operating system. Fails when the system has no randomness.
    pub fn mint(clock: &dyn Clock) -> Result<Self, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        Ok(Self { id: TokenId::new(clock), secret })
    }

    /// What is stored in place of the secret.
    pub fn hash(&self) -> SecretHash {
        SecretHash(Sha256::digest(self.secret).into())
    }

    /// The text to hand to the token's owner, once.
    pub fn reveal(&self) -> Secret {
        Secret::new(format!("{TOKEN_PREFIX}{}_{}", self.id.0.simple(), hex(&self.secret)))
    }

    /// Takes a text apart; `None` when it has not the shape of a token.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(TOKEN_PREFIX)?.split_once('_')?;
        if id.len() != 32 {
            return None;
        }
        Some(Self { id: TokenId(Uuid::try_parse(id).ok()?), secret: unhex(secret)? })
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenText({}, ‹secret›)", self.id)
    }
}

fn hex(bytes: &[u8; SECRET_BYTES]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(2 * SECRET_BYTES), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all text");
        text
    })
}

fn unhex(text: &str) -> Option<[u8; SECRET_BYTES]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * SECRET_BYTES {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; SECRET_BYTES];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::{Scope, Scopes, TokenText};
    use crate::clock::SystemClock;

    #[test]
    fn a_token_text_survives_its_round_trip_and_is_never_printed() {
        let token = TokenText::mint(&SystemClock).unwrap();
        let text = token.reveal();
        assert!(text.expose().starts_with("krl_") && text.expose().len() == 4 + 32 + 1 + 64);
        let parsed = TokenText::parse(text.expose()).unwrap();
        assert!(parsed.id == token.id && parsed.hash() == token.hash());
        assert!(!format!("{token:?}").contains(&text.expose()[37..]));
        for bad in ["", "krl_", "krl__", "nope", &text.expose()[..100], &text.expose().to_uppercase()] {
            assert!(TokenText::parse(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn a_set_of_scopes_holds_what_it_was_given_and_nothing_else() {
        let set: Scopes = [Scope::AppsCall, Scope::JobsRead].into_iter().collect();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Scope::JobsRead, Scope::AppsCall]);
        assert!(!set.contains(Scope::JobsWrite));
        assert_eq!(
            Scope::ALL.iter().map(|s| s.as_str().parse()).collect::<Result<Vec<Scope>, _>>().unwrap(),
            Scope::ALL
        );
    }
}
