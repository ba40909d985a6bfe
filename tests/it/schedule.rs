//! The scheduler: fires commit with their ledger row and their next instant, whoever looks and however often.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, TimeDelta, Utc};
use krilin::{
    clock::SystemClock,
    jobs,
    model::{
        id::{JobId, UserId, WorkerId},
        job,
        schedule::{CatchUp, Clockwork, Origin, Overlap, State, Wanted},
        user::NewUser,
    },
    schedule::{Occurred, Row, Schedules, scheduler::Scheduler},
    store::{
        leases::{self, Claim, Ending, Turn},
        users,
    },
};
use sqlx::PgPool;

use crate::world::World;

/// A world with schedules, and schedulers that are driven by hand.
pub struct Stage {
    pub world: World,
    pub schedules: Schedules,
    scheduler: Scheduler,
}

/// The kind of all jobs here; no worker runs it.
const KIND: &str = "retention";

pub fn scheduler(pool: &PgPool) -> Scheduler {
    Scheduler::new(pool, Arc::new(SystemClock), jobs::policies(None).unwrap(), Arc::new(|_| ()))
}

pub fn schedules(pool: &PgPool) -> Schedules {
    Schedules::new(pool, Arc::new(SystemClock), jobs::policies(None).unwrap(), Arc::new(|_| ()))
}

fn cron(line: &str) -> Wanted {
    Wanted { timezone: "UTC".to_owned(), ..Wanted::new(Origin::Operator, KIND, Clockwork::Cron(line.to_owned())) }
}

fn every(period: Duration) -> Wanted {
    Wanted::new(Origin::Operator, KIND, Clockwork::Every(period))
}

const HOUR: Duration = Duration::from_hours(1);

impl Stage {
    async fn new() -> Self {
        let world = World::new().await;
        Self { schedules: schedules(&world.pool), scheduler: scheduler(&world.pool), world }
    }

    async fn create(&self, wanted: Wanted) -> Row {
        self.schedules.create(wanted).await.unwrap()
    }

    async fn again(&self, row: &Row) -> Row {
        self.schedules.get(row.id, None).await.unwrap()
    }

    async fn user(&self, zone: &str) -> UserId {
        let user = NewUser::parse("Ada", None, zone).unwrap();
        users::insert(&self.world.pool, UserId::new(&SystemClock), &user).await.unwrap().id
    }

    /// Looks until nothing is due.
    async fn look(&self) {
        while self.scheduler.tick().await.unwrap() <= Duration::from_millis(2) {}
    }

    /// The ledger, oldest first.
    async fn ledger(&self, row: &Row) -> Vec<Occurred> {
        let mut rows = self.schedules.ledger(row.id, None, 200).await.unwrap();
        rows.reverse();
        rows
    }

    async fn outcomes(&self, row: &Row) -> Vec<String> {
        self.ledger(row).await.into_iter().map(|one| one.outcome).collect()
    }

    async fn jobs(&self) -> Vec<JobId> {
        sqlx::query_scalar("select id from krilin.jobs order by id").fetch_all(&self.world.pool).await.unwrap()
    }

    async fn run(&self, statement: &'static str) {
        sqlx::raw_sql(statement).execute(&self.world.owner).await.unwrap();
    }

    async fn now(&self) -> DateTime<Utc> {
        sqlx::query_scalar("select krilin.now()").fetch_one(&self.world.pool).await.unwrap()
    }
}

#[tokio::test]
async fn a_due_schedule_makes_one_job_and_is_due_again() {
    let stage = Stage::new().await;
    let row = stage.create(Wanted { args: serde_json::json!({"a": 1}), ..every(HOUR) }).await;
    stage.look().await;
    assert!(stage.jobs().await.is_empty(), "nothing is due yet");
    stage.world.advance(HOUR).await;
    stage.look().await;
    stage.look().await;
    let [fired] = &stage.ledger(&row).await[..] else { panic!("one row") };
    assert_eq!((fired.outcome.as_str(), Some(fired.nominal_at)), ("fired", row.next_at));
    assert_eq!(stage.jobs().await, [fired.job_id.unwrap()]);
    let (cause, args): (String, serde_json::Value) =
        sqlx::query_as("select cause, args from krilin.jobs").fetch_one(&stage.world.pool).await.unwrap();
    assert_eq!((cause, args), (format!("schedule {}", row.name), serde_json::json!({"a": 1})));
    let after = stage.again(&row).await;
    assert_eq!(after.next_at, row.next_at.map(|next| next + TimeDelta::hours(1)));
    assert_eq!((after.run_count, after.last_job_id), (1, fired.job_id));
}

/// Failure 11 of the list that schedulers are known for: lost when the process is away at the minute, double when two run,
/// a panic at a transition (`clocks.rs`), one bad schedule that stalls all (below).
#[tokio::test]
async fn a_fire_is_not_lost_when_nobody_looks_at_its_minute() {
    let stage = Stage::new().await;
    let [none, one, all] =
        [CatchUp::None, CatchUp::One, CatchUp::All].map(|catch_up| Wanted { catch_up, ..every(HOUR) });
    let (none, one, all) = (stage.create(none).await, stage.create(one).await, stage.create(all).await);
    stage.world.advance(HOUR * 3 + Duration::from_mins(30)).await;
    stage.look().await;
    assert_eq!(stage.outcomes(&one).await, ["coalesced", "coalesced", "fired"]);
    assert_eq!(stage.ledger(&one).await[2].missed, 2);
    assert!(stage.ledger(&one).await[2].late_ms >= 1_800_000);
    assert_eq!(stage.outcomes(&all).await, ["fired", "fired", "fired"]);
    assert_eq!(stage.outcomes(&none).await, ["skipped", "skipped", "skipped"]);
    assert_eq!(stage.jobs().await.len(), 4);
}

#[tokio::test]
async fn many_schedulers_fire_each_instant_once() {
    const SCHEDULES: usize = 2_500;
    let stage = Stage::new().await;
    sqlx::query(
        "insert into krilin.schedules (id, name, origin, kind, args, every_ms, timezone, anchor_at, next_at, due_at, tzdata,
             created_at, updated_at)
         select gen_random_uuid(), 's' || n, 'operator', 'retention', '{}', 3600000, 'user', now, now, now, '2020a', now, now
         from generate_series(1, $1) as n, krilin.now() as now",
    )
    .bind(i32::try_from(SCHEDULES).unwrap())
    .execute(&stage.world.pool)
    .await
    .unwrap();
    let schedulers: Vec<_> = (0..4).map(|_| scheduler(&stage.world.pool)).collect();
    // Long enough that those who do not fire first take part, too.
    stage.world.advance(Duration::from_secs(5)).await;
    for _ in 0..3 {
        for looked in futures::future::join_all(schedulers.iter().map(Scheduler::tick)).await {
            looked.unwrap();
        }
    }
    let (fires, jobs): (i64, i64) = sqlx::query_as(
        "select (select count(*) from krilin.occurrences where outcome = 'fired'), (select count(*) from krilin.jobs)",
    )
    .fetch_one(&stage.world.pool)
    .await
    .unwrap();
    assert_eq!((fires, jobs), (2_500, 2_500));
}

#[tokio::test]
async fn a_schedule_that_cannot_be_worked_out_is_parked_and_the_others_fire() {
    let stage = Stage::new().await;
    let mut rows = Vec::new();
    for name in ["good", "zone", "line", "row"] {
        rows.push(stage.create(Wanted { name: Some(name.to_owned()), ..cron("0 * * * *") }).await);
    }
    stage.run("update krilin.schedules set timezone = 'Mars/Olympus' where name = 'zone'").await;
    stage.run("update krilin.schedules set cron = 'at noon' where name = 'line'").await;
    stage
        .run(
            "create function krilin.refuse() returns trigger language plpgsql as $$ begin
                 if new.schedule_id = (select id from krilin.schedules where name = 'row') then
                     raise exception 'this row is refused';
                 end if;
                 return new;
             end $$;
             create trigger refuse before insert on krilin.occurrences for each row execute function krilin.refuse();",
        )
        .await;
    stage.world.advance(HOUR).await;
    stage.look().await;
    let mut stands = Vec::new();
    for row in &rows {
        let row = stage.again(row).await;
        stands.push((row.name, row.state, row.run_count));
    }
    let stand = |name: &str, state: &str, runs| (name.to_owned(), state.to_owned(), runs);
    assert_eq!(
        stands,
        [stand("good", "active", 1), stand("zone", "parked", 0), stand("line", "parked", 0), stand("row", "parked", 0),]
    );
    assert!(stage.again(&rows[1]).await.reason.unwrap().contains("Mars/Olympus"));
    assert_eq!(stage.jobs().await.len(), 1);
    let stuck = stage.schedules.resume(&stage.again(&rows[1]).await).await.unwrap_err();
    assert!(stuck.to_string().contains("Mars/Olympus"), "{stuck}");
}

#[tokio::test]
async fn a_user_who_moves_takes_their_schedules_along() {
    let stage = Stage::new().await;
    let user = stage.user("Europe/Berlin").await;
    let daily = Wanted { timezone: "user".to_owned(), user_id: Some(user), ..cron("0 9 * * *") };
    let row = stage.create(daily).await;
    let local = |row: &Row| row.next_at.unwrap().with_timezone(&chrono_tz::Asia::Tokyo).format("%H:%M").to_string();
    assert_ne!(local(&row), "09:00");
    stage.run("update krilin.users set timezone = 'Asia/Tokyo'").await;
    stage.look().await;
    let moved = stage.again(&row).await;
    assert_eq!((local(&moved).as_str(), moved.run_count), ("09:00", 0));
    stage.run("update krilin.users set timezone = 'Asia/Atlantis'").await;
    stage.look().await;
    assert_eq!(stage.again(&row).await.state, "parked");
    stage.run("update krilin.users set timezone = 'Asia/Tokyo'").await;
    stage.look().await;
    let back = stage.again(&row).await;
    assert_eq!((back.state.as_str(), back.next_at), ("active", moved.next_at));
    assert!(stage.jobs().await.is_empty(), "moving fires nothing");
}

#[tokio::test]
async fn newer_zone_data_reckons_every_line_anew() {
    let stage = Stage::new().await;
    let row = stage.create(cron("0 9 * * *")).await;
    stage.run("update krilin.schedules set next_at = next_at + interval '1 hour', due_at = due_at + interval '1 hour', tzdata = '1999a'").await;
    stage.look().await;
    assert_eq!(stage.again(&row).await.next_at, row.next_at);
    let known: String =
        sqlx::query_scalar("select tzdata from krilin.scheduler").fetch_one(&stage.world.pool).await.unwrap();
    assert_eq!(known, chrono_tz::IANA_TZDB_VERSION);
    assert!(stage.jobs().await.is_empty());
}

#[tokio::test]
async fn failures_in_a_row_pause_a_schedule_and_a_hand_lets_it_go_on() {
    let stage = Stage::new().await;
    let row = stage.create(Wanted { pause_after: Some(2), ..every(HOUR) }).await;
    for hours in 1..=3 {
        stage.world.advance(HOUR * hours).await;
        stage.look().await;
        stage
            .run(
                "with gone as (delete from krilin.jobs returning *)
                 insert into krilin.job_history (id, kind, queue, args, state, priority, attempt, max_attempts, run_at,
                     created_at, finished_at)
                 select id, kind, queue, args, 'dead', priority, 1, 1, run_at, created_at, krilin.now() from gone",
            )
            .await;
    }
    let paused = stage.again(&row).await;
    assert_eq!((paused.state.as_str(), paused.failure_count, paused.next_at.is_some()), ("paused", 2, true));
    assert_eq!(stage.outcomes(&row).await, ["fired", "fired", "skipped"]);
    stage.world.advance(HOUR * 5).await;
    stage.look().await;
    assert_eq!(stage.ledger(&row).await.len(), 3, "a paused schedule is not looked at");
    stage.schedules.resume(&paused).await.unwrap();
    stage.look().await;
    stage.world.advance(HOUR * 6).await;
    stage.look().await;
    assert_eq!(stage.outcomes(&row).await, ["fired", "fired", "skipped", "skipped", "skipped", "fired"]);
    assert_eq!(stage.again(&row).await.failure_count, 0);
}

#[tokio::test]
async fn a_job_that_has_not_ended_keeps_the_next_fire_out() {
    let stage = Stage::new().await;
    let skip = stage.create(every(HOUR)).await;
    let queue = stage.create(Wanted { overlap: Overlap::Queue, ..every(HOUR) }).await;
    for hours in 1..=2 {
        stage.world.advance(HOUR * hours).await;
        stage.look().await;
    }
    assert_eq!(stage.outcomes(&skip).await, ["fired", "skipped"]);
    assert_eq!(stage.outcomes(&queue).await, ["fired", "fired"]);
    stage.run("delete from krilin.jobs").await;
    stage.world.advance(HOUR * 3).await;
    stage.look().await;
    assert_eq!(stage.outcomes(&skip).await, ["fired", "skipped", "fired"]);
}

#[tokio::test]
async fn jobs_of_a_schedule_that_queues_run_one_after_the_other() {
    let stage = Stage::new().await;
    let row = stage.create(Wanted { overlap: Overlap::Queue, ..every(HOUR) }).await;
    let beside = stage.create(every(HOUR)).await;
    for hours in 1..=3 {
        stage.world.advance(HOUR * hours).await;
        stage.look().await;
    }
    stage.schedules.trigger(&row).await.unwrap();
    stage.schedules.trigger(&beside).await.unwrap();
    // Not even where the queue lets jobs of one key run at once.
    stage
        .run(
            "insert into krilin.queues (name, max_running_per_key, updated_at, updated_by)
             values ('system', 10, krilin.now(), 'Ada')",
        )
        .await;
    let (pool, claim) =
        (&stage.world.pool, Claim { queue: "system", limit: 9, worker_id: WorkerId::new(&SystemClock), lease: HOUR });
    let (mut endings, mut counts) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let claimed = leases::claim_in_turn(pool, &endings, claim, Turn::default()).await.unwrap();
        let done = |lease| Ending { lease, state: job::State::Done, result: None, error: None };
        endings = claimed.jobs.iter().map(|(_, lease)| done(*lease)).collect();
        counts.push(claimed.jobs.len());
    }
    // One of the schedule that queues each time, at first beside the other's first and that by hand.
    assert_eq!(counts, [3, 1, 1, 1, 0]);
}

#[tokio::test]
async fn a_hand_pauses_triggers_and_cancels() {
    let stage = Stage::new().await;
    let row = stage.create(every(HOUR)).await;
    stage.schedules.pause(&row, "for a while").await.unwrap();
    stage.world.advance(HOUR * 2).await;
    stage.look().await;
    assert!(stage.jobs().await.is_empty());
    let job = stage.schedules.trigger(&row).await.unwrap();
    assert_eq!(stage.jobs().await, [job]);
    let by_hand = &stage.ledger(&row).await[0];
    assert_eq!((by_hand.job_id, by_hand.reason.as_deref()), (Some(job), Some("triggered by hand")));
    let paused = stage.again(&row).await;
    assert_eq!((paused.state.as_str(), paused.reason.as_deref()), ("paused", Some("for a while")));
    assert!(stage.schedules.upcoming(&paused).await.unwrap().is_empty());
    stage.schedules.resume(&paused).await.unwrap();
    assert_eq!(stage.schedules.upcoming(&stage.again(&row).await).await.unwrap().len(), 10);
    stage.schedules.cancel(&row).await.unwrap();
    assert!(stage.schedules.get(row.id, None).await.is_err());
    stage.world.advance(HOUR * 9).await;
    stage.look().await;
    assert_eq!(stage.jobs().await, [job]);
}

#[tokio::test]
async fn once_is_once_and_a_name_is_one_schedule() {
    let stage = Stage::new().await;
    let at = stage.now().await + TimeDelta::minutes(10);
    let once = || Wanted { name: Some("party".to_owned()), ..Wanted::new(Origin::Operator, KIND, Clockwork::Once(at)) };
    let row = stage.create(once()).await;
    assert_eq!(stage.create(once()).await.id, row.id);
    stage.world.advance(HOUR).await;
    stage.look().await;
    let ended = stage.again(&row).await;
    assert_eq!((ended.state.as_str(), ended.run_count, ended.next_at), (State::Ended.as_str(), 1, None));
    // The same instant again is the same fire.
    stage.create(once()).await;
    stage.look().await;
    assert_eq!((stage.jobs().await.len(), stage.ledger(&row).await.len()), (1, 1));
    let limited = stage.create(Wanted { max_runs: Some(1), ..every(HOUR) }).await;
    stage.world.advance(HOUR * 4).await;
    stage.look().await;
    let limited = stage.again(&limited).await;
    assert_eq!((limited.state.as_str(), limited.run_count), ("ended", 1));
}

#[tokio::test]
async fn what_cannot_be_meant_is_refused_with_its_field() {
    let stage = Stage::new().await;
    let refused = async |wanted: Wanted| stage.schedules.create(wanted).await.unwrap_err().to_string();
    assert!(refused(cron("0 25 * * *")).await.starts_with("cron: "));
    assert!(refused(every(Duration::from_millis(999))).await.starts_with("every: "));
    assert!(refused(Wanted { timezone: "Berlin".to_owned(), ..cron("0 9 * * *") }).await.starts_with("timezone: "));
    assert!(refused(Wanted { max_runs: Some(0), ..every(HOUR) }).await.starts_with("max_runs: "));
    assert!(refused(Wanted { name: Some(String::new()), ..every(HOUR) }).await.starts_with("name: "));
    let past = DateTime::from_timestamp(0, 0);
    assert!(refused(Wanted { ends_at: past, ..every(HOUR) }).await.starts_with("ends_at: "));
}
