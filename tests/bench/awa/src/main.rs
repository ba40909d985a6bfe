//! awa, with the storage that a fresh installation of it has.

use std::time::Duration;

use adapter::{SEEN, System};
use awa::{
    Client, InsertOpts, InsertParams, JobArgs, JobResult, JobState, QueueConfig, admin, insert_many_copy_from_pool,
    insert_with, migrations,
};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgPoolOptions};

const QUEUE: &str = "noop";
/// Jobs in one call for many.
const BULK: usize = 10_000;

#[derive(Serialize, Deserialize, JobArgs)]
struct Noop {
    habit: String,
    day: String,
}

fn noop() -> Noop {
    serde_json::from_value(adapter::payload()).expect("two strings")
}

fn options() -> InsertOpts {
    InsertOpts { queue: QUEUE.into(), ..InsertOpts::default() }
}

struct Awa(PgPool);

impl System for Awa {
    type Worker = Client;

    async fn connect(url: &str) -> Self {
        Self(PgPoolOptions::new().max_connections(20).connect(url).await.expect("it connects"))
    }

    async fn setup(&self) {
        migrations::run(&self.0).await.expect("its migrations apply");
    }

    /// It has rings and partitions of its own; its schema is made anew.
    async fn empty(&self) {
        sqlx::raw_sql("drop schema if exists awa cascade; drop schema if exists awa_queue_storage cascade")
            .execute(&self.0)
            .await
            .expect("its schema");
        self.setup().await;
    }

    async fn enqueue(&self) {
        insert_with(&self.0, &noop(), options()).await.expect("it stores");
    }

    async fn bulk(&self, jobs: usize) {
        for _ in 0..jobs.div_ceil(BULK) {
            let many: Vec<_> = (0..BULK)
                .map(|_| InsertParams { kind: Noop::kind().to_owned(), args: adapter::payload(), opts: options() })
                .collect();
            insert_many_copy_from_pool(&self.0, &many).await.expect("it stores");
        }
    }

    async fn work(&self, many: bool) -> Self::Worker {
        let config = QueueConfig {
            max_workers: if many { 512 } else { 50 },
            poll_interval: Duration::from_millis(50),
            ..QueueConfig::default()
        };
        let client = Client::builder(self.0.clone())
            .queue(QUEUE, config)
            .register::<Noop, _, _>(|_, _| async {
                SEEN.one();
                Ok(JobResult::Completed)
            })
            .build()
            .expect("a client");
        client.start().await.expect("it starts");
        client
    }

    async fn left(&self) -> i64 {
        let counts = admin::state_counts(&self.0).await.expect("its tables");
        counts.iter().filter(|(state, _)| **state != JobState::Completed).map(|(_, count)| count).sum()
    }
}

fn main() {
    adapter::main::<Awa>();
}
