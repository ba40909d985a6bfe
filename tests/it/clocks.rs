//! When schedules fire: every change of every zone's clock for two years, no fire lost and none doubled, each with a row
//! in the ledger.

use std::{collections::BTreeSet, time::Duration};

use chrono::{DateTime, NaiveDateTime, TimeDelta, Timelike, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use krilin::model::{
    id::ScheduleId,
    schedule::{Before, CatchUp, Line, Outcome, Overlap, Standing, State, Timing, UPCOMING, When, judge, upcoming},
    zone,
};

/// How far around a change fires are compared with what a person would read off the wall.
const AROUND: TimeDelta = TimeDelta::hours(4);

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn id(n: u64) -> ScheduleId {
    ScheduleId(uuid::Uuid::from_u64_pair(0x018f_0000_0000_7000, 0x8000_0000_0000_0000 | n))
}

fn timing(line: &str, zone: Tz) -> Timing {
    let when = When::Cron(Box::new(Line::parse(line).unwrap()));
    Timing { id: id(1), when, zone, starts_at: None, ends_at: None, jitter: Duration::ZERO }
}

/// The instants at which the clocks of `zone` jump, to the minute, in two years from `from`.
fn changes(zone: Tz, from: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let offset = |at: DateTime<Utc>| zone::local(at, zone) - at.naive_utc();
    let mut found = Vec::new();
    let mut day = from;
    while day < from + TimeDelta::days(730) {
        let (mut low, mut high) = (day, day + TimeDelta::days(1));
        day = high;
        if offset(low) == offset(high) {
            continue;
        }
        while high - low > TimeDelta::minutes(1) {
            let middle = low + TimeDelta::minutes((high - low).num_minutes() / 2);
            if offset(middle) == offset(low) { low = middle } else { high = middle }
        }
        found.push(high);
    }
    found
}

/// A wall clock, minute by minute around a change.
struct Wall {
    minutes: Vec<(DateTime<Utc>, NaiveDateTime)>,
}

impl Wall {
    fn new(change: DateTime<Utc>, zone: Tz) -> Self {
        let count = 2 * AROUND.num_minutes();
        let minute = |n| change - AROUND + TimeDelta::minutes(n);
        Self { minutes: (0..count).map(|n| (minute(n), zone::local(minute(n), zone))).collect() }
    }

    /// Whenever the clock shows such a time.
    fn shown(&self, named: impl Fn(NaiveDateTime) -> bool) -> BTreeSet<DateTime<Utc>> {
        self.minutes.iter().filter(|(_, shown)| named(*shown)).map(|(at, _)| *at).collect()
    }

    /// When the clock shows or has passed such a time for the first time.
    fn reached(&self, named: impl Fn(NaiveDateTime) -> bool) -> BTreeSet<DateTime<Utc>> {
        let mut furthest = self.minutes[0].1 - TimeDelta::minutes(1);
        let mut found = BTreeSet::new();
        for (at, shown) in &self.minutes {
            while furthest < *shown {
                furthest += TimeDelta::minutes(1);
                if named(furthest) {
                    found.insert(*at);
                }
            }
        }
        found
    }

    fn ends(&self) -> (DateTime<Utc>, DateTime<Utc>) {
        (self.minutes[0].0, self.minutes[self.minutes.len() - 1].0)
    }
}

/// Every nominal fire of a schedule between two instants, as a scheduler that looks at odd times judges them.
fn ledger(timing: &Timing, (from, to): (DateTime<Utc>, DateTime<Utc>), catch_up: CatchUp) -> Vec<DateTime<Utc>> {
    let Some(first) = timing.next(from - TimeDelta::minutes(1)) else { return Vec::new() };
    let mut standing = Standing::fresh(first, catch_up, Overlap::Queue);
    let mut rows: Vec<DateTime<Utc>> = Vec::new();
    let (mut now, mut step) = (from, 1);
    while now <= to {
        // 1, 3, 9, 27 … minutes between looks: on time, then away across the change.
        (now, step) = (now + TimeDelta::minutes(step), (step * 3) % 200);
        let verdict = judge(timing, &standing, now.min(to));
        rows.extend(verdict.occurrences.iter().map(|one| one.nominal_at));
        assert_eq!(verdict.state, State::Active);
        standing.next_at = verdict.next_at.unwrap();
        standing.missed = verdict.missed;
    }
    rows
}

#[test]
fn no_fire_is_lost_and_none_doubled_at_any_change_of_any_zones_clock() {
    let from = at("2026-01-01T00:00:00Z");
    let mut seen = 0;
    for (number, zone) in TZ_VARIANTS.iter().copied().enumerate() {
        for (nth, change) in changes(zone, from).into_iter().enumerate() {
            seen += 1;
            let wall = Wall::new(change, zone);
            let jump = zone::local(change, zone).max(zone::local(change - TimeDelta::minutes(1), zone));
            let inside = jump - TimeDelta::minutes(17);
            let (hour, minute, next) = (inside.hour(), inside.minute(), (inside.hour() + 1) % 24);
            let catch_up = [CatchUp::None, CatchUp::One, CatchUp::All][(number + nth) % 3];
            let check = |line: &str, expected: BTreeSet<DateTime<Utc>>| {
                let rows = ledger(&timing(line, zone), wall.ends(), catch_up);
                let expected: Vec<_> = expected.into_iter().collect();
                assert_eq!(rows, expected, "`{line}` in {zone} around {change}");
            };
            check(&format!("{minute} {hour} * * *"), wall.reached(|t| (t.hour(), t.minute()) == (hour, minute)));
            check(
                &format!("*/20 {hour},{next} * * *"),
                wall.reached(|t| [hour, next].contains(&t.hour()) && t.minute() % 20 == 0),
            );
            check(&format!("{minute} * * * *"), wall.shown(|t| t.minute() == minute));
            check("*/11 */2 * * *", wall.shown(|t| t.hour() % 2 == 0 && t.minute() % 11 == 0));
        }
    }
    assert!(seen > 500, "only {seen} changes in all zones");
}

fn outcomes(catch_up: CatchUp, away: TimeDelta) -> (Vec<(Outcome, u32)>, u32) {
    let timing = timing("*/10 * * * *", Tz::UTC);
    let next_at = at("2026-03-03T09:00:00Z");
    let verdict = judge(&timing, &Standing::fresh(next_at, catch_up, Overlap::Skip), next_at + away);
    (verdict.occurrences.iter().map(|one| (one.outcome, one.missed)).collect(), verdict.missed)
}

#[test]
fn missed_fires_become_none_one_or_all() {
    use Outcome::{Coalesced, Fired, Skipped};
    let late = TimeDelta::minutes(25);
    assert_eq!(outcomes(CatchUp::One, late), (vec![(Coalesced, 0), (Coalesced, 0), (Fired, 2)], 0));
    assert_eq!(outcomes(CatchUp::All, late), (vec![(Fired, 0), (Fired, 0), (Fired, 0)], 0));
    assert_eq!(outcomes(CatchUp::None, late), (vec![(Skipped, 0), (Skipped, 0), (Skipped, 0)], 3));
    for catch_up in [CatchUp::None, CatchUp::One, CatchUp::All] {
        assert_eq!(outcomes(catch_up, TimeDelta::seconds(3)), (vec![(Fired, 0)], 0));
    }
    // On time for the last, though not for the two before.
    assert_eq!(outcomes(CatchUp::None, TimeDelta::seconds(1_203)).0, [(Skipped, 0), (Skipped, 0), (Fired, 2)]);
}

/// Judges again and again until nothing is due, as the scheduler does.
fn all_of(timing: &Timing, catch_up: CatchUp, (next_at, now): (DateTime<Utc>, DateTime<Utc>)) -> Vec<(Outcome, u32)> {
    let mut standing = Standing::fresh(next_at, catch_up, Overlap::Skip);
    let mut all = Vec::new();
    while standing.next_at <= now {
        let verdict = judge(timing, &standing, now);
        assert!(!verdict.occurrences.is_empty());
        all.extend(verdict.occurrences.iter().map(|one| (one.outcome, one.missed)));
        (standing.next_at, standing.missed) = (verdict.next_at.unwrap(), verdict.missed);
    }
    all
}

#[test]
fn a_long_absence_is_judged_in_pieces_and_every_fire_has_a_row() {
    let timing = timing("* * * * *", Tz::UTC);
    let (next_at, now) = (at("2026-03-03T00:00:00Z"), at("2026-03-03T23:59:30Z"));
    let fired = |all: &[(Outcome, u32)]| all.iter().filter(|(outcome, _)| *outcome == Outcome::Fired).count();
    let one = all_of(&timing, CatchUp::One, (next_at, now));
    assert_eq!((one.len(), fired(&one), one.last().copied()), (1_440, 1, Some((Outcome::Fired, 1_439))));
    let all = all_of(&timing, CatchUp::All, (next_at, now));
    assert_eq!((all.len(), fired(&all)), (1_440, 100));
    assert_eq!(all[1_340], (Outcome::Fired, 1_340), "the first that is made up for knows of those that are not");
    let none = all_of(&timing, CatchUp::None, (next_at, now));
    assert_eq!((none.len(), fired(&none)), (1_440, 1));
}

#[test]
fn a_run_that_has_not_ended_keeps_the_next_one_out_or_waiting() {
    let (timing, next_at) = (timing("*/10 * * * *", Tz::UTC), at("2026-03-03T09:00:00Z"));
    let judged = |overlap, before| {
        let standing = Standing { before, ..Standing::fresh(next_at, CatchUp::One, overlap) };
        judge(&timing, &standing, next_at).occurrences[0].outcome
    };
    assert_eq!(judged(Overlap::Skip, Before::Live), Outcome::Skipped);
    assert_eq!(judged(Overlap::Queue, Before::Live), Outcome::Fired);
    assert_eq!(judged(Overlap::Skip, Before::Done), Outcome::Fired);
}

#[test]
fn failures_in_a_row_pause_and_a_last_run_ends() {
    let (timing, next_at) = (timing("*/10 * * * *", Tz::UTC), at("2026-03-03T09:00:00Z"));
    let fresh = Standing::fresh(next_at, CatchUp::One, Overlap::Skip);
    let failing = Standing { before: Before::Dead, failures: 2, pause_after: Some(3), ..fresh.clone() };
    let verdict = judge(&timing, &failing, next_at);
    assert_eq!((verdict.state, verdict.occurrences[0].outcome), (State::Paused, Outcome::Skipped));
    assert_eq!((verdict.due_at, verdict.failures), (None, 3));
    let recovered = judge(&timing, &Standing { before: Before::Done, ..failing }, next_at);
    assert_eq!((recovered.state, recovered.failures), (State::Active, 0));

    let last = Standing { run_count: 4, max_runs: Some(5), ..fresh.clone() };
    let verdict = judge(&timing, &last, next_at);
    assert_eq!((verdict.state, verdict.run_count, verdict.next_at), (State::Ended, 5, None));
    let paused = Standing { skip_until: Some(next_at + TimeDelta::minutes(10)), ..fresh };
    let verdict = judge(&timing, &paused, next_at + TimeDelta::minutes(20));
    let outcomes: Vec<_> = verdict.occurrences.iter().map(|one| one.outcome).collect();
    assert_eq!(outcomes, [Outcome::Skipped, Outcome::Skipped, Outcome::Fired]);
    assert_eq!(verdict.missed, 0, "a pause is no miss");
}

#[test]
fn the_next_ten_fires_mark_where_the_clock_moves() {
    let timing = timing("0 9 * * *", Tz::Europe__Berlin);
    let list = upcoming(&timing, at("2026-10-23T12:00:00Z"), None);
    assert_eq!(list.len(), UPCOMING);
    assert_eq!(list[0].local, "2026-10-24T09:00:00+02:00");
    assert_eq!(list[1].local, "2026-10-25T09:00:00+01:00");
    let moves: Vec<_> = list.iter().map(|fire| fire.clock_moves_minutes).collect();
    assert_eq!(moves[..3], [None, Some(-60), None]);
}
