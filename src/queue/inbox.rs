//! Where attempts leave what became of them, for the feeder of their lane. Refuses to wake it for each: the feeder says for
//! how many it waits.

use std::{
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::execute::{Ack, Verdict};

/// Bounded by the lane's window: each lease leaves one.
#[derive(Default)]
pub(super) struct Inbox {
    inside: Mutex<Inside>,
    full: Notify,
}

#[derive(Default)]
struct Inside {
    acks: Vec<Ack>,
    /// The feeder sleeps until so many are there; zero when it does not.
    wanted: usize,
}

impl Inbox {
    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves one. Only what can wait for others to share its commit does not wake at once.
    pub(super) fn put(&self, ack: Ack) {
        let patient = matches!(ack.verdict, Verdict::End { .. });
        let mut inside = self.inside();
        inside.acks.push(ack);
        if inside.wanted > 0 && (!patient || inside.acks.len() >= inside.wanted) {
            inside.wanted = 0;
            drop(inside);
            self.full.notify_one();
        }
    }

    /// All that is there.
    pub(super) fn take(&self) -> Vec<Ack> {
        mem::take(&mut self.inside().acks)
    }

    /// Waits until `count` are there, or one that cannot wait.
    pub(super) async fn holds(&self, count: usize) {
        {
            let mut inside = self.inside();
            let urgent = |ack: &Ack| !matches!(ack.verdict, Verdict::End { .. });
            if inside.acks.len() >= count || inside.acks.iter().any(urgent) {
                return;
            }
            inside.wanted = count.max(1);
        }
        self.full.notified().await;
    }
}
