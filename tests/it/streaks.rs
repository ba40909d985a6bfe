//! The habit tracker's streaks against a second opinion: definitions written down again in Rust, with calendar types and
//! without numbers of periods, and histories nobody thought of.
//!
//! The app's own JavaScript runs in the sandbox, many histories per pass. What the lists say is compared after every step
//! of a life in which days are logged, logged late and undone, rhythms change, clocks change and the person travels.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike, Days, NaiveDate, TimeDelta, Utc, Weekday};
use chrono_tz::Tz;
use futures::future::BoxFuture;
use krilin::{
    model::{
        bundle::Bundle,
        host::{Call, Host, LogLine, Settled},
    },
    sandbox::{CPU_MAX, Facts, Limits, Pool, PoolOptions, Run},
};
use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestCaseError, TestRunner},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::runtime::Handle;

/// Zones with daylight saving at odd hours, half hours, none, and both sides of the date line.
const ZONES: [&str; 9] = [
    "UTC",
    "Europe/Berlin",
    "America/New_York",
    "America/Los_Angeles",
    "Australia/Lord_Howe",
    "Africa/Cairo",
    "Asia/Kathmandu",
    "Pacific/Auckland",
    "Pacific/Honolulu",
];

/// The most rows that three reads of a habit of days may cost together, however old it is: two pages, a week, the habits.
const ROWS_READ_MAX: usize = 2 * 40 + 7 + 2;

/// How long a counterexample is made smaller, in milliseconds.
const SHRINK_MS: u32 = 20_000;

/// What a habit asks for.
#[derive(Debug, Clone, Serialize, PartialEq)]
struct Rhythm {
    frequency: &'static str,
    weekly_target: usize,
    week_start: &'static str,
}

/// Local days on which the habit was done.
type DaysDone = BTreeSet<NaiveDate>;

// The second opinion: streaks as README.md defines them, counted by walking the calendar.

/// The streak as of `today` and the best one until then.
fn reference(rhythm: &Rhythm, days: &DaysDone, today: NaiveDate) -> (usize, usize) {
    let first = days.first().copied().unwrap_or(today).min(today);
    let best = days.range(..=today).map(|day| streak_at(rhythm, days, first, *day)).max();
    (streak_at(rhythm, days, first, today), best.unwrap_or(0))
}

/// The streak as someone would have counted it in the evening of `today`, who knows of no day after.
fn streak_at(rhythm: &Rhythm, days: &DaysDone, first: NaiveDate, today: NaiveDate) -> usize {
    let done = |day: NaiveDate| day <= today && days.contains(&day);
    let weekend = |day: NaiveDate| matches!(day.weekday(), Weekday::Sat | Weekday::Sun);
    let back = |from: NaiveDate| std::iter::successors(Some(from), NaiveDate::pred_opt).take_while(|day| *day >= first);
    match rhythm.frequency {
        "daily" => back(today).skip(usize::from(!done(today))).take_while(|day| done(*day)).count(),
        "weekdays" => {
            let due = || back(today).filter(|day| !weekend(*day));
            let open = !weekend(today) && !done(today);
            due().skip(usize::from(open)).take_while(|day| done(*day)).count()
        }
        _ => {
            let kept =
                |week: NaiveDate| week.iter_days().take(7).filter(|day| done(*day)).count() >= rhythm.weekly_target;
            let this_week = week_of(rhythm, today);
            let weeks = std::iter::successors(Some(this_week), |week| week.checked_sub_days(Days::new(7)));
            weeks.skip(usize::from(!kept(this_week))).take_while(|week| kept(*week)).count()
        }
    }
}

/// The first day of the week that holds `day`.
fn week_of(rhythm: &Rhythm, day: NaiveDate) -> NaiveDate {
    let start = if rhythm.week_start == "sunday" { Weekday::Sun } else { Weekday::Mon };
    day.week(start).first_day()
}

// Histories

fn rhythms() -> impl Strategy<Value = Rhythm> {
    let weekly = (1..=7_usize, select(vec!["monday", "sunday"])).prop_map(|(weekly_target, week_start)| Rhythm {
        frequency: "weekly",
        weekly_target,
        week_start,
    });
    let by_day = (select(vec!["daily", "weekdays"]), select(vec!["monday", "sunday"]))
        .prop_map(|(frequency, week_start)| Rhythm { frequency, weekly_target: 1, week_start });
    prop_oneof![2 => by_day, 1 => weekly]
}

/// Days done around the turn of a year: stretches in which every day, every weekday, some days or none are done.
fn histories() -> impl Strategy<Value = DaysDone> {
    let first =
        (2019..2032_i32, 1..=366_u32).prop_map(|(year, day)| NaiveDate::from_yo_opt(year, day).unwrap_or_default());
    let stretch = (1..90_usize, 0..5_u8, proptest::collection::vec(any::<bool>(), 90));
    (first, proptest::collection::vec(stretch, 0..9)).prop_map(|(first, stretches)| {
        let mut calendar = first.iter_days();
        let mut done = DaysDone::new();
        for (length, kind, coins) in stretches {
            for (day, coin) in calendar.by_ref().take(length).zip(coins) {
                let weekday = !matches!(day.weekday(), Weekday::Sat | Weekday::Sun);
                if matches!((kind, weekday, coin), (0, ..) | (1, true, _) | (2, _, true) | (3, true, true)) {
                    done.insert(day);
                }
            }
        }
        done
    })
}

#[derive(Debug, Clone, Serialize)]
struct Case {
    rhythm: Rhythm,
    days: DaysDone,
    today: NaiveDate,
}

fn cases() -> impl Strategy<Value = Case> {
    (rhythms(), histories(), 0..800_u64, 0..5_u64).prop_map(|(rhythm, days, into, after)| {
        let first = days.first().copied().unwrap_or_default();
        let last = days.last().copied().unwrap_or_default();
        let middle = first.checked_add_days(Days::new(into)).unwrap_or(last);
        Case {
            rhythm,
            days,
            today: if after == 0 { middle } else { last.checked_add_days(Days::new(after - 1)).unwrap() },
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn streaks_are_what_the_calendar_says() {
    let app = App::start();
    holds(24, &proptest::collection::vec(cases(), 64), |cases| {
        let told: Vec<(usize, usize)> = app.run("streaks_of", &json!(cases));
        for (case, told) in cases.iter().zip(told) {
            let counted = reference(&case.rhythm, &case.days, case.today);
            prop_assert_eq!(told, counted, "(streak, best) of {}", serde_json::to_string(case).unwrap());
        }
        Ok(())
    });
}

// Lives

/// One thing a person does; `ago` is how many days before today the day lies that it is about.
#[derive(Debug, Clone)]
enum Act {
    Log { ago: u64, completed: bool },
    Edit(Rhythm),
}

#[derive(Debug, Clone)]
struct Move {
    hours: i64,
    travel: Option<&'static str>,
    week_start: Option<&'static str>,
    act: Act,
}

fn moves() -> impl Strategy<Value = Move> {
    let ago = prop_oneof![20 => Just(0_u64), 4 => 0..4_u64, 2 => 10..60_u64, 1 => 60..400_u64];
    let log = (ago, prop::bool::weighted(0.93)).prop_map(|(ago, completed)| Act::Log { ago, completed });
    let act = prop_oneof![60 => log, 1 => rhythms().prop_map(Act::Edit)];
    // Mostly a day or less between two steps, now and then a gap.
    let hours = prop_oneof![12 => 18..27_i64, 2 => 0..6_i64, 1 => 27..200_i64];
    let travel = prop::option::weighted(0.03, select(ZONES.to_vec()));
    let week_start = prop::option::weighted(0.01, select(vec!["monday", "sunday"]));
    (hours, travel, week_start, act).prop_map(|(hours, travel, week_start, act)| Move {
        hours,
        travel,
        week_start,
        act,
    })
}

#[derive(Debug, Clone)]
struct Life {
    rhythm: Rhythm,
    zone: &'static str,
    begins: DateTime<Utc>,
    moves: Vec<Move>,
}

fn lives() -> impl Strategy<Value = Life> {
    // Some day, some hour between 2020 and 2031.
    let begins = (1_577_836_800..1_924_992_000_i64).prop_map(|at| DateTime::from_timestamp(at, 0).unwrap());
    (rhythms(), select(ZONES.to_vec()), begins, proptest::collection::vec(moves(), 1..220))
        .prop_map(|(rhythm, zone, begins, moves)| Life { rhythm, zone, begins, moves })
}

/// A step as streaks.js reads it.
#[derive(Debug, Serialize)]
struct Step {
    at: DateTime<Utc>,
    zone: &'static str,
    week_start: &'static str,
    act: &'static str,
    day: NaiveDate,
    completed: bool,
    rhythm: Rhythm,
}

/// What streaks.js tells after a step.
#[derive(Debug, Clone, Deserialize, PartialEq)]
struct Told {
    today: NaiveDate,
    logged: (usize, usize),
    listed: (usize, usize),
    one: (usize, usize),
    last: Option<NaiveDate>,
    done_today: bool,
    done_in_get_today: bool,
    rows_read: usize,
}

/// The steps of a life, and what should be told after each but for the rows read.
fn play(life: &Life) -> (Vec<Step>, Vec<Told>) {
    let (mut at, mut zone, mut rhythm) = (life.begins, life.zone, life.rhythm.clone());
    let mut days = DaysDone::new();
    let mut steps = Vec::new();
    let mut expected = Vec::new();
    for one in &life.moves {
        at += TimeDelta::hours(one.hours);
        zone = one.travel.unwrap_or(zone);
        rhythm.week_start = one.week_start.unwrap_or(rhythm.week_start);
        let today = at.with_timezone(&zone.parse::<Tz>().unwrap()).date_naive();
        let (act, day, completed) = match &one.act {
            Act::Log { ago, completed } => ("log", today.checked_sub_days(Days::new(*ago)).unwrap(), *completed),
            Act::Edit(new) => {
                rhythm = Rhythm { week_start: rhythm.week_start, ..new.clone() };
                ("edit", today, true)
            }
        };
        match (act, completed) {
            ("log", true) => drop(days.insert(day)),
            ("log", false) => drop(days.remove(&day)),
            _ => {}
        }
        let counted = reference(&rhythm, &days, today);
        let done_today = days.contains(&today);
        expected.push(Told {
            today,
            logged: counted,
            listed: counted,
            one: counted,
            last: days.range(..=today).next_back().copied(),
            done_today,
            done_in_get_today: done_today && is_due(&rhythm, &days, today),
            rows_read: 0,
        });
        steps.push(Step { at, zone, week_start: rhythm.week_start, act, day, completed, rhythm: rhythm.clone() });
    }
    (steps, expected)
}

/// Whether the habit is due on `today`: a weekly one until its target is reached.
fn is_due(rhythm: &Rhythm, days: &DaysDone, today: NaiveDate) -> bool {
    match rhythm.frequency {
        "daily" => true,
        "weekdays" => !matches!(today.weekday(), Weekday::Sat | Weekday::Sun),
        _ => days.range(week_of(rhythm, today)..today).count() < rhythm.weekly_target,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_life_of_logging_late_undoing_and_travelling_keeps_every_streak_right() {
    let app = App::start();
    holds(12, &proptest::collection::vec(lives(), 4), |lives| {
        let played: Vec<_> = lives.iter().map(play).collect();
        let input = lives.iter().zip(&played).map(|(life, (steps, _))| json!({"rhythm": life.rhythm, "steps": steps}));
        let told: Vec<Vec<Told>> = app.run("live", &json!(input.collect::<Vec<_>>()));
        for ((steps, expected), told) in played.iter().zip(told) {
            for ((step, mut expected), told) in steps.iter().zip(expected.iter().cloned()).zip(told) {
                if step.rhythm.frequency != "weekly" {
                    prop_assert!(told.rows_read <= ROWS_READ_MAX, "{} rows read", told.rows_read);
                }
                expected.rows_read = told.rows_read;
                prop_assert_eq!(&told, &expected, "after {:?}", step);
            }
        }
        Ok(())
    });
}

/// The habit tracker's code with streaks.js joined to it, in the sandbox.
struct App {
    pool: Pool,
    bundle: Bundle,
}

impl App {
    fn start() -> Self {
        let source = concat!(include_str!("../../apps/habit-tracker/app.js"), include_str!("streaks.js"));
        let options = PoolOptions { size: 1, ..PoolOptions::of(env!("CARGO_BIN_EXE_krilin")) };
        Self { pool: Pool::start(options).unwrap(), bundle: Bundle::new("app.js", source) }
    }

    /// Calls an exported function; blocks, because proptest does.
    fn run<T: for<'de> Deserialize<'de>>(&self, entry: &str, input: &Value) -> T {
        let input = serde_json::value::to_raw_value(input).unwrap();
        let limits = Limits { cpu: CPU_MAX, ..Limits::default() };
        let (bundle, facts, now) = (&self.bundle, &Facts::nobody(), DateTime::UNIX_EPOCH);
        let pass = self.pool.run(Run { bundle, entry, input: &input, facts, limits, seed: 1, now }, &Nobody);
        let pass = tokio::task::block_in_place(|| Handle::current().block_on(pass)).unwrap();
        serde_json::from_str(pass.value.get()).unwrap()
    }
}

/// A host for code that asks for nothing.
struct Nobody;

impl Host for Nobody {
    fn settle(&self, calls: Vec<Call>) -> BoxFuture<'_, Vec<Settled>> {
        panic!("the arithmetic called {calls:?}");
    }

    fn log(&self, line: LogLine) {
        panic!("the arithmetic logged {line:?}");
    }
}

/// Checks `property` for `cases` values of `strategy`, and shrinks what breaks it.
fn holds<S: Strategy>(cases: u32, strategy: &S, property: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = Config { cases, failure_persistence: None, max_shrink_time: SHRINK_MS, ..Config::default() };
    if let Err(failure) = TestRunner::new(config).run(strategy, property) {
        panic!("{failure:#}");
    }
}
