//! Connections at hand: what is kept, what is not, and that nothing open outlives whoever dropped it.

use std::{sync::Arc, time::Duration};

use futures::future::try_join_all;
use krilin::{
    clock::SystemClock,
    queue::{Queue, worker},
    store::{self, Error, Stack, stack::Connection},
};
use serde_json::json;
use sqlx::PgConnection;

use crate::{
    kinds::{Kit, OWN, job, until},
    world::{World, admin_of},
};

async fn pid(db: &mut PgConnection) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()").fetch_one(db).await.unwrap()
}

async fn take_all(world: &World, stack: &Stack) -> Vec<Connection> {
    let mut taken = Vec::new();
    for _ in 0..world.pool.options().get_max_connections() {
        taken.push(stack.take().await.unwrap());
    }
    taken
}

#[tokio::test]
async fn the_connection_used_last_is_used_next() {
    let world = World::new().await;
    let stack = Stack::over(&world.pool);
    let (mut first, mut second) = (stack.take().await.unwrap(), stack.take().await.unwrap());
    let (_, last) = (pid(&mut first).await, pid(&mut second).await);
    first.after(Ok::<_, Error>(())).unwrap();
    second.after(Ok::<_, Error>(())).unwrap();
    assert_eq!(stack.at_hand(), 2);
    for _ in 0..3 {
        let mut tx = stack.begin().await.unwrap();
        assert_eq!(pid(&mut tx).await, last);
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_pool_has_half_of_its_connections_for_others() {
    let world = World::new().await;
    let stack = Stack::over(&world.pool);
    let taken = take_all(&world, &stack).await;
    for connection in taken {
        connection.after(Ok::<_, Error>(())).unwrap();
        until(async || (world.pool.num_idle() > 0).then_some(())).await;
    }
    assert_eq!(stack.at_hand(), 4);
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(world.pool.acquire().await.unwrap());
    }
}

#[tokio::test]
async fn whoever_waits_gets_the_next_connection() {
    let world = World::new().await;
    let stack = Stack::over(&world.pool);
    let mut taken = take_all(&world, &stack).await;
    for _ in 0..20 {
        let (next, guest) = (stack.take(), world.pool.acquire());
        let free = async {
            tokio::task::yield_now().await;
            for connection in taken.drain(..2) {
                connection.after(Ok::<_, Error>(())).unwrap();
            }
        };
        let (waited, guest, ()) = tokio::join!(next, guest, free);
        drop(guest.unwrap());
        taken.extend([waited.unwrap(), stack.take().await.unwrap()]);
    }
}

#[tokio::test]
async fn what_failed_or_was_dropped_is_not_kept_and_is_rolled_back() {
    let world = World::new().await;
    let stack = Stack::over(&world.pool);
    let mut db = stack.take().await.unwrap();
    let failed = store::within(sqlx::query("select 1/0").execute(&mut *db)).await;
    db.after(failed).unwrap_err();
    assert_eq!(stack.at_hand(), 0);

    sqlx::raw_sql("create table krilin.numbers (n int); grant all on krilin.numbers to krilin_runtime")
        .execute(&world.owner)
        .await
        .unwrap();
    let mut dropped = stack.begin().await.unwrap();
    sqlx::query("insert into numbers values (1)").execute(&mut *dropped).await.unwrap();
    drop(dropped);
    // Its lock goes with it, although nobody asks the connection for anything.
    let locked = async || {
        let mut tx = world.owner.begin().await.unwrap();
        sqlx::query("lock krilin.numbers in access exclusive mode nowait").execute(&mut *tx).await.ok()
    };
    until(locked).await;
    let count: i64 = sqlx::query_scalar("select count(*) from numbers").fetch_one(&world.pool).await.unwrap();
    assert_eq!((count, stack.at_hand()), (0, 0));
}

#[tokio::test]
async fn a_transaction_begins_although_the_connections_at_hand_have_died() {
    let world = World::new().await;
    let stack = Stack::over(&world.pool);
    let mut taken = Vec::new();
    for _ in 0..3 {
        taken.push(stack.take().await.unwrap());
    }
    let mut admin = admin_of(&world).await;
    for mut connection in taken {
        let dies = pid(&mut connection).await;
        connection.after(Ok::<_, Error>(())).unwrap();
        sqlx::query("select pg_terminate_backend($1, 5000)").bind(dies).execute(&mut admin).await.unwrap();
    }
    assert_eq!(stack.at_hand(), 3);
    let mut tx = stack.begin().await.unwrap();
    pid(&mut tx).await;
    tx.commit().await.unwrap();
    assert_eq!(stack.at_hand(), 1);
}

#[tokio::test]
async fn a_queue_that_is_gone_keeps_no_connection() {
    let kit = Kit::new().await;
    let pool = store::beside(&kit.world.pool, 4, &[]);
    for _ in 0..3 {
        let queue = Queue::new(&pool, Arc::new(SystemClock), kit.queue.policies().clone());
        let worker = worker::start(&queue, &kit.registry, &pool, &kit.options);
        let ids = queue.enqueue_many(vec![job(OWN, json!({})); 8]).await.unwrap();
        for done in ids {
            kit.ended(done.job_id).await;
        }
        // A claim may have the last of them in hand.
        until(async || (queue.stack().at_hand() > 0).then_some(())).await;
        worker.stop().await;
    }
    let all = (0..4).map(|_| pool.acquire());
    let all = tokio::time::timeout(Duration::from_secs(5), try_join_all(all)).await;
    assert_eq!(all.expect("they come back at once").unwrap().len(), 4);
}
