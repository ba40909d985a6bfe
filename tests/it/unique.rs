//! Keys: a unique key makes one live job, an idempotency key makes a repeated request harmless.

use krilin::{
    clock::SystemClock,
    model::{
        id::UserId,
        job::{Idempotency, NewJob, State, Unique},
    },
    queue::Error,
};
use serde_json::json;

use crate::kinds::{BATCH, Kit, job};

fn unique(key: &str) -> NewJob {
    NewJob { unique: Some(Unique::new(key)), ..job(BATCH, json!({})) }
}

fn once(user_id: Option<UserId>, key: &str, hash: u8) -> NewJob {
    let idempotency = Some(Idempotency { key: key.to_owned(), request_hash: [hash; 32], told: None });
    NewJob { user_id, idempotency, ..job(BATCH, json!({})) }
}

#[tokio::test]
async fn a_unique_key_gives_back_the_live_job_and_is_free_after_it() {
    let kit = Kit::new().await;
    let first = kit.queue.enqueue(unique("a")).await.unwrap();
    let second = kit.queue.enqueue(unique("a")).await.unwrap();
    let other = kit.queue.enqueue(unique("b")).await.unwrap();
    assert_eq!((first.created(), second.created(), other.created()), (true, false, true));
    assert_eq!(first.job_id, second.job_id);
    let worker = kit.worker();
    kit.ended(first.job_id).await;
    let third = kit.queue.enqueue(unique("a")).await.unwrap();
    assert!(third.created() && third.job_id != first.job_id);
    worker.stop().await;
}

#[tokio::test]
async fn fifty_at_once_with_one_key_make_one_job() {
    let kit = Kit::new().await;
    let done = futures::future::try_join_all((0..50).map(|_| kit.queue.enqueue(unique("a")))).await.unwrap();
    assert_eq!(done.iter().filter(|done| done.created()).count(), 1);
    assert!(done.iter().all(|one| one.job_id == done[0].job_id));
    let done = futures::future::try_join_all((0..50).map(|_| kit.queue.enqueue(once(None, "k", 1)))).await.unwrap();
    assert_eq!(done.iter().filter(|done| done.created()).count(), 1);
    assert!(done.iter().all(|one| one.job_id == done[0].job_id));
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 2);
}

#[tokio::test]
async fn a_repeated_request_gives_the_first_job_even_after_it_ended() {
    let kit = Kit::new().await;
    let (ann, bob) = (UserId::new(&SystemClock), UserId::new(&SystemClock));
    let first = kit.queue.enqueue(once(Some(ann), "k", 1)).await.unwrap();
    let worker = kit.worker();
    assert_eq!(kit.ended(first.job_id).await.state, State::Done);
    let again = kit.queue.enqueue(once(Some(ann), "k", 1)).await.unwrap();
    assert_eq!((again.job_id, again.created()), (first.job_id, false));
    assert!(matches!(kit.queue.enqueue(once(Some(ann), "k", 2)).await, Err(Error::KeyReused)));
    let bobs = kit.queue.enqueue(once(Some(bob), "k", 2)).await.unwrap();
    assert!(bobs.created());
    kit.ended(bobs.job_id).await;
    assert_eq!(kit.count("select count(*) from krilin.job_history").await, 2);
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);
    worker.stop().await;
}

#[tokio::test]
async fn a_reused_key_in_a_batch_leaves_none_of_the_batch() {
    let kit = Kit::new().await;
    kit.queue.enqueue(once(None, "k", 1)).await.unwrap();
    let batch = vec![job(BATCH, json!({})), once(None, "fresh", 1), once(None, "k", 2)];
    assert!(matches!(kit.queue.enqueue_many(batch).await, Err(Error::KeyReused)));
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 1);
    assert_eq!(kit.count("select count(*) from krilin.idempotency_keys").await, 1);
}

#[tokio::test]
async fn both_keys_together_remember_the_job_that_was_there() {
    let kit = Kit::new().await;
    let first = kit.queue.enqueue(unique("a")).await.unwrap();
    let both = NewJob { unique: Some(Unique::new("a")), ..once(None, "k", 1) };
    let second = kit.queue.enqueue(both.clone()).await.unwrap();
    assert_eq!((second.job_id, second.created()), (first.job_id, false));
    kit.queue.cancel(first.job_id, None).await.unwrap();
    let third = kit.queue.enqueue(both).await.unwrap();
    assert_eq!((third.job_id, third.created()), (first.job_id, false));
    assert_eq!(kit.count("select count(*) from krilin.jobs").await, 0);
}
