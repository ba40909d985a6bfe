//! The idempotency keys of the requests that this process is answering. Refuses a request whose key is in the hands of
//! another one; other processes are told by the database, while the first request's commit is under way.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
};

use super::error::{IN_FLIGHT_RETRY_AFTER, Kind, Problem};
use crate::model::id::UserId;

/// Bounded by the requests in flight and the bodies of lines that are being read.
#[derive(Debug, Clone, Default)]
pub struct Keys(Arc<Mutex<HashSet<(UserId, String)>>>);

/// A key in the hands of one request, until this is dropped.
#[derive(Debug)]
pub struct Held {
    keys: Keys,
    key: (UserId, String),
}

impl Keys {
    /// Takes the key, where there is one.
    pub fn hold(&self, user_id: UserId, key: Option<&str>) -> Result<Option<Held>, Problem> {
        let Some(key) = key else { return Ok(None) };
        let key = (user_id, key.to_owned());
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !held.insert(key.clone()) {
            let detail = "a request with this key is being answered; ask again when it is";
            return Err(Problem::new(Kind::IdempotencyKeyInFlight, detail).with_retry_after(IN_FLIGHT_RETRY_AFTER));
        }
        Ok(Some(Held { keys: self.clone(), key }))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.keys.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
