//! One line on how a worker stands, for whoever supervises it: what waits in its queues, what it has in hand. Refuses to
//! count a long queue to its end.

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;

use super::lease::Leases;
use crate::{store::jobs, supervisor::Supervisor};

/// How often the line is written.
const INTERVAL: Duration = Duration::from_secs(5);
/// At how many jobs the count stops.
const COUNTED_MAX: i64 = 10_000;

/// Writes the line until dropped; not at all where nobody supervises.
pub(super) async fn keep(supervisor: Supervisor, pool: PgPool, leases: Arc<Leases>, queues: Vec<String>) {
    while supervisor.is_there() {
        let due = jobs::count_ready(&pool, &queues, COUNTED_MAX).await;
        supervisor.status(&line(leases.count(), due.ok()));
        tokio::time::sleep(INTERVAL).await;
    }
}

fn line(in_hand: usize, due: Option<i64>) -> String {
    let due = match due {
        None => "how many wait is not known, the database does not answer".to_owned(),
        Some(COUNTED_MAX..) => format!("{COUNTED_MAX} or more wait"),
        Some(due) => format!("{due} wait"),
    };
    format!("{in_hand} in flight, {due}")
}

#[cfg(test)]
mod tests {
    use super::{COUNTED_MAX, line};

    #[test]
    fn the_line_says_what_is_known() {
        assert_eq!(line(3, Some(12)), "3 in flight, 12 wait");
        assert_eq!(line(0, Some(COUNTED_MAX)), "0 in flight, 10000 or more wait");
        assert_eq!(line(1, None), "1 in flight, how many wait is not known, the database does not answer");
    }
}
