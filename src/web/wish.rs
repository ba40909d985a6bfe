//! What a caller asks for beside the request itself: to wait for the end (`Prefer: wait`, RFC 7240), and that a repeated
//! request does its work once (`Idempotency-Key`).
//!
//! A preference that is not understood is passed over, as RFC 7240 asks; a key that is too long is refused.

use std::time::Duration;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, request::Parts},
};
use sha2::{Digest, Sha256};

use super::{
    error::{Kind, Problem},
    limit,
};
use crate::model::job::Idempotency;

/// The header of a key.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says `true` on an answer that stands for an earlier request with the same key.
pub const IDEMPOTENCY_REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// The header of preferences.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// Says which preference was honoured.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// The wishes of one request.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// How long to wait for the end of the job; none where nobody waits.
    pub wait: Option<Duration>,
    key: Option<String>,
    path: String,
}

impl<S: Sync> FromRequestParts<S> for Wishes {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let key = parts.headers.get(IDEMPOTENCY_KEY).map(|value| value.to_str().unwrap_or_default().to_owned());
        if key.as_ref().is_some_and(|key| key.is_empty() || key.len() > limit::IDEMPOTENCY_KEY_MAX) {
            let detail = format!("`Idempotency-Key` has 1 to {} ASCII characters", limit::IDEMPOTENCY_KEY_MAX);
            return Err(Problem::new(Kind::BadRequest, detail));
        }
        let path = if key.is_some() { parts.uri.path().to_owned() } else { String::new() };
        Ok(Self { wait: wait(&parts.headers), key, path })
    }
}

impl Wishes {
    /// The key, where the request has one.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The same without waiting, for many jobs at once.
    #[must_use]
    pub fn without_waiting(self) -> Self {
        Self { wait: None, ..self }
    }

    /// What the key stands for: this path and this body. The first job of a request has the key itself, the others of a
    /// batch have one derived from it.
    pub fn idempotency(&self, body: &[u8], index: usize) -> Option<Idempotency> {
        let key = self.key.as_ref()?;
        let mut hash = Sha256::new();
        hash.update(self.path.as_bytes());
        hash.update([0]);
        hash.update(body);
        let key = if index == 0 { key.clone() } else { format!("{:x}#{index}", Sha256::digest(key)) };
        Some(Idempotency { key, request_hash: hash.finalize().into(), told: None })
    }
}

/// The seconds of the preference `wait`, at most [`limit::WAIT_MAX`].
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let all = headers.get_all(PREFER).into_iter().filter_map(|value| value.to_str().ok());
    let mut preferences = all.flat_map(|value| value.split(','));
    let seconds: u64 = preferences.find_map(|preference| {
        let (name, value) = preference.split(';').next()?.split_once('=')?;
        name.trim().eq_ignore_ascii_case("wait").then(|| value.trim().trim_matches('"').parse().ok())?
    })?;
    Some(Duration::from_secs(seconds).min(limit::WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::HeaderMap;

    use super::{PREFER, wait};

    #[test]
    fn a_wait_is_found_among_preferences_and_cut_to_its_bound() {
        let of = |text: &str| wait(&HeaderMap::from_iter([(PREFER, text.parse().unwrap())])).map(|wait| wait.as_secs());
        assert_eq!(of("wait=5"), Some(5));
        assert_eq!(of("respond-async, Wait = \"7\"; foo=bar"), Some(7));
        assert_eq!(of("wait=3600"), Some(30));
        assert_eq!([of("wait"), of("wait=soon"), of("return=minimal"), of("wait=-1")], [None; 4]);
        assert_eq!(wait(&HeaderMap::new()), None::<Duration>);
    }
}
