//! Who is asking: `Authorization: Bearer krl_…` to a [`Caller`].
//!
//! Refuses a token that is missing, wrong, expired or revoked, each with a `type` of its own; the last two only to who
//! knows the secret. A token's row is believed for [`BELIEVED_FOR`](super::memory::BELIEVED_FOR): a revocation takes
//! effect within that time.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{header, request::Parts},
};
use chrono::{DateTime, TimeDelta, Utc};
use sqlx::PgPool;

use super::{
    Web,
    error::{Kind, Problem},
    limit::Burst,
    memory::Memory,
};
use crate::{
    model::{
        clock::Clock,
        id::{TokenId, UserId},
        token::{Scope, SecretHash, Token, TokenText},
    },
    store::{self, tokens},
};

/// How old the note of the last use may grow before it is written again.
const LAST_USE_GRAIN: TimeDelta = TimeDelta::minutes(1);

/// Who is asking, and what they may do.
#[derive(Debug, Clone)]
pub struct Caller {
    token: Arc<Token>,
    remaining: u32,
}

impl Caller {
    /// For whom the request speaks.
    pub fn user_id(&self) -> UserId {
        self.token.user_id
    }

    /// How many more requests the token may make at this moment.
    pub fn remaining(&self) -> u32 {
        self.remaining
    }

    /// Whether the token allows this; the answer to a token that does not names the scope.
    pub fn may(&self, scope: Scope) -> Result<(), Problem> {
        if self.token.scopes.contains(scope) {
            Ok(())
        } else {
            Err(Problem::new(Kind::ScopeMissing, format!("this needs a token with the scope `{scope}`")))
        }
    }
}

impl FromRequestParts<Web> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, web: &Web) -> Result<Self, Problem> {
        let header = parts.headers.get(header::AUTHORIZATION).ok_or_else(|| {
            Problem::new(Kind::TokenMissing, "send `Authorization: Bearer <token>`; `krilin token create` makes one")
        })?;
        let text = header.to_str().ok().and_then(bearer).ok_or_else(invalid)?;
        let text = TokenText::parse(text).ok_or_else(invalid)?;
        web.door().admit(&text).await
    }
}

/// The credentials of the scheme `Bearer`, whose name is case-insensitive (RFC 9110, 11.1).
fn bearer(header: &str) -> Option<&str> {
    let (scheme, credentials) = header.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credentials.trim())
}

fn invalid() -> Problem {
    Problem::new(Kind::TokenInvalid, "there is no such token")
}

/// Lets callers in: reads tokens, remembers them for a moment, counts their requests.
pub struct Door {
    pool: PgPool,
    clock: Arc<dyn Clock>,
    burst: Burst,
    known: Memory<TokenId, (Arc<Token>, SecretHash)>,
}

impl Door {
    /// A door over the tokens in `pool`.
    pub fn new(pool: PgPool, clock: Arc<dyn Clock>, burst: Burst) -> Self {
        Self { pool, clock, burst, known: Memory::default() }
    }

    /// Lets the holder of `text` in, or says why not.
    async fn admit(&self, text: &TokenText) -> Result<Caller, Problem> {
        let remembered = self.known.recall(&text.id);
        let fresh = remembered.is_none();
        let (token, hash) = match remembered {
            Some(known) => known,
            None => self.read(text.id).await?,
        };
        // The secret is 256 random bits and only its hash is compared: how long that takes tells nothing of use.
        if hash != text.hash() {
            return Err(invalid());
        }
        if token.revoked_at.is_some() {
            return Err(Problem::new(
                Kind::TokenRevoked,
                "this token was revoked; `krilin token create` makes another",
            ));
        }
        if token.expires_at.is_some_and(|end| end <= self.clock.now()) {
            return Err(Problem::new(
                Kind::TokenExpired,
                "this token has expired; `krilin token create` makes another",
            ));
        }
        let remaining = self.burst.check(token.id)?;
        if fresh && is_stale(token.last_used_at, self.clock.now()) {
            self.note_use(token.id).await;
        }
        Ok(Caller { token, remaining })
    }

    /// Writes down that the token was used. A request does not fail because that could not be noted.
    async fn note_use(&self, id: TokenId) {
        if let Err(error) = tokens::touch(&self.pool, id).await {
            tracing::warn!(token.id = %id, %error, "noting the last use of token {id}");
        }
    }

    async fn read(&self, id: TokenId) -> Result<(Arc<Token>, SecretHash), Problem> {
        let (token, hash) = match tokens::find(&self.pool, id).await {
            Ok(found) => found,
            Err(store::Error::NotFound) => return Err(invalid()),
            Err(other) => return Err(other.into()),
        };
        let token = Arc::new(token);
        self.known.keep(id, (token.clone(), hash));
        Ok((token, hash))
    }
}

fn is_stale(last_used_at: Option<DateTime<Utc>>, now: DateTime<Utc>) -> bool {
    last_used_at.is_none_or(|last| now - last >= LAST_USE_GRAIN)
}
