//! What handlers say while they run: seen before the commit, kept after a rollback, bounded.

use krilin::{
    model::{
        host::{LogLevel, LogLine},
        id::LeaseToken,
        job::{Lease, State},
    },
    queue::report::{self, Report},
};
use serde_json::{Value, json};

use crate::kinds::{BATCH, Kit, OWN, until};

async fn messages(kit: &Kit, id: krilin::model::id::JobId) -> Vec<(i32, String)> {
    let batches = kit.queue.log(id, 0, 100).await.unwrap();
    let lines = |batch: krilin::queue::Batch| {
        batch.lines.into_iter().map(move |line| (batch.attempt, line.message)).collect::<Vec<_>>()
    };
    batches.into_iter().flat_map(lines).collect()
}

#[tokio::test]
async fn progress_and_log_are_seen_while_the_handler_runs() {
    let mut kit = Kit::new().await;
    let worker = kit.worker();
    let args = json!({"log": ["half way"], "progress": 0.5, "do": "block"});
    let id = kit.enqueue(OWN, args).await;
    kit.began.recv().await.unwrap();
    let job = until(async || Some(kit.state(id).await).filter(|job| job.progress.is_some())).await;
    assert_eq!(job.state, State::Running, "nothing is committed yet");
    assert_eq!(job.progress, Some(json!({"value": 0.5, "message": "as told"})));
    assert_eq!(messages(&kit, id).await, [(1, "half way".to_owned())]);
    kit.gate.notify_one();
    let job = kit.ended(id).await;
    assert_eq!((job.state, job.progress.unwrap()["value"].clone()), (State::Done, json!(0.5)));
    assert_eq!(messages(&kit, id).await.len(), 1, "nothing is written twice");
    worker.stop().await;
}

#[tokio::test]
async fn the_log_of_a_failed_attempt_outlives_its_rollback() {
    let kit = Kit::new().await;
    let worker = kit.worker();
    for kind in [OWN, BATCH] {
        let id = kit.enqueue(kind, json!({"log": ["about to fail"], "do": "fail_until", "n": 2})).await;
        assert_eq!(kit.ended(id).await.state, State::Done);
        let said: Vec<_> = messages(&kit, id).await;
        assert_eq!(said[0], (1, "about to fail".to_owned()), "{kind}");
        assert!(said.len() <= 2, "{kind}: {said:?}");
    }
    assert_eq!(kit.effects().await, 1);
    worker.stop().await;
}

#[tokio::test]
async fn many_lines_are_few_rows_and_end_at_the_cap() {
    let kit = Kit::new().await;
    let worker = kit.worker();
    let lines: Vec<String> = (0..=report::LINES_MAX).map(|n| format!("line {n}")).collect();
    let id = kit.enqueue(BATCH, json!({"log": lines})).await;
    assert_eq!(kit.ended(id).await.state, State::Done);
    let said = messages(&kit, id).await;
    assert_eq!(said.len(), report::LINES_MAX + 1);
    assert!(said.last().unwrap().1.starts_with("the log ends here"));
    assert_eq!(kit.count("select count(*) from krilin.job_logs").await, 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_lost_the_job_reports_nothing() {
    let kit = Kit::new().await;
    let id = kit.enqueue(BATCH, json!({})).await;
    let report = Report::default();
    report.log(&LogLine { level: LogLevel::Info, message: "too late".to_owned(), fields: Value::Null });
    report.progress(&json!(1), None).unwrap();
    let stale = Lease { job_id: id, token: LeaseToken(id.0) };
    report.write_with(&kit.world.pool, &stale).await.unwrap();
    assert_eq!(kit.state(id).await.progress, None);
    assert_eq!(kit.count("select count(*) from krilin.job_logs").await, 0);
}

#[test]
fn a_progress_is_a_share_or_an_object_and_small() {
    let report = Report::default();
    for good in [json!(0), json!(1), json!(0.3), json!({"done": 3, "of": 9})] {
        report.progress(&good, Some("words")).unwrap();
    }
    for bad in [json!(1.1), json!(-0.1), json!("half"), json!(null), json!({"x": "y".repeat(report::PROGRESS_BYTES)})] {
        assert!(report.progress(&bad, None).is_err(), "{bad}");
    }
}
