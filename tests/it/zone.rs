//! Calendar arithmetic over every zone and every change of its clocks.

use chrono::{DateTime, Duration, NaiveDate, NaiveTime, Timelike, Utc};
use chrono_tz::{TZ_VARIANTS, Tz};
use krilin::model::{user::WeekStart, zone};
use proptest::prelude::*;

/// 1970 to 2037, whole seconds: where the zone data is dense and its clocks change often.
const LAST_SECOND: i64 = 2_145_916_800;

fn any_zone() -> impl Strategy<Value = Tz> {
    (0..TZ_VARIANTS.len()).prop_map(|n| TZ_VARIANTS[n])
}

fn any_instant() -> impl Strategy<Value = DateTime<Utc>> {
    (0..LAST_SECOND).prop_map(|seconds| DateTime::from_timestamp(seconds, 0).unwrap())
}

fn any_day() -> impl Strategy<Value = NaiveDate> {
    any_instant().prop_map(|at| at.date_naive())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_a_clock_shows_leads_back_to_its_instant_or_to_the_first_of_two(at in any_instant(), tz in any_zone()) {
        let shown = zone::local(at, tz);
        let back = zone::at(shown.date(), shown.time(), tz).unwrap();
        prop_assert!(back <= at);
        prop_assert_eq!(zone::local(back, tz), shown);
        prop_assert!(at - back <= Duration::hours(25));
    }

    #[test]
    fn a_skipped_time_is_the_first_instant_after_the_gap(day in any_day(), minute in 0_u32..1_440, tz in any_zone()) {
        let time = NaiveTime::from_hms_opt(minute / 60, minute % 60, 0).unwrap();
        let found = zone::at(day, time, tz).unwrap();
        let asked = day.and_time(time);
        prop_assert!(zone::local(found, tz) >= asked);
        prop_assert!(zone::local(found - Duration::seconds(60), tz) < asked, "{found} is not the first");
    }

    #[test]
    fn days_begin_one_after_the_other(day in any_day(), tz in any_zone()) {
        let next = zone::add_days(day, 1).unwrap();
        let (begin, end) = (zone::at(day, NaiveTime::MIN, tz).unwrap(), zone::at(next, NaiveTime::MIN, tz).unwrap());
        // Samoa once skipped a day: there two days begin at the same instant.
        prop_assert!(begin <= end && end - begin <= Duration::hours(49), "{begin} {end}");
        prop_assert_eq!(zone::local(begin, tz).second(), 0);
    }

    #[test]
    fn weeks_hold_their_days(day in any_day(), n in -40_000_i64..40_000) {
        for (start, first) in [(WeekStart::Monday, 1), (WeekStart::Sunday, 7)] {
            let begin = zone::start_of_week(day, start).unwrap();
            prop_assert_eq!(zone::weekday(begin), first);
            prop_assert!((0..7).contains(&zone::days_between(begin, day)));
        }
        let moved = zone::add_days(day, n).unwrap();
        prop_assert_eq!(zone::days_between(day, moved), n);
        prop_assert_eq!(zone::week(day) == zone::week(moved), {
            zone::start_of_week(day, WeekStart::Monday) == zone::start_of_week(moved, WeekStart::Monday)
        });
    }
}

fn at(day: &str, time: &str, tz: &str) -> String {
    let found = zone::at(zone::day(day).unwrap(), zone::time(time).unwrap(), zone::zone(tz).unwrap()).unwrap();
    zone::instant_text(found)
}

#[test]
fn the_known_changes_of_clocks_come_out_as_known() {
    assert_eq!(at("2026-03-29", "02:30", "Europe/Berlin"), "2026-03-29T01:00:00Z");
    assert_eq!(at("2026-10-25", "02:30", "Europe/Berlin"), "2026-10-25T00:30:00Z");
    assert_eq!(at("2026-11-01", "01:30", "America/New_York"), "2026-11-01T05:30:00Z");
    assert_eq!(at("2011-12-30", "12:00", "Pacific/Apia"), "2011-12-30T10:00:00Z");
    assert_eq!(at("2026-09-06", "00:00", "America/Santiago"), "2026-09-06T04:00:00Z");
    assert_eq!(zone::week(zone::day("2027-01-01").unwrap()), "2026-W53");
}

#[test]
fn patterns_say_what_they_cannot() {
    let shown = zone::day("2026-11-22").unwrap().and_hms_opt(20, 5, 9).unwrap();
    let text = zone::format_local(shown, "EEEE, d MMMM yyyy 'at' h:mm a, EEE dd.MM.yy HH:mm:ss ''").unwrap();
    assert_eq!(text, "Sunday, 22 November 2026 at 8:05 PM, Sun 22.11.26 20:05:09 '");
    assert!(zone::format_local(shown, "YYYY").is_err());
    assert!(zone::format_local(shown, "'open").is_err());
    assert!(zone::day("2026-02-30").is_err() && zone::day("26-1-1").is_err() && zone::zone("Berlin").is_err());
    assert!(zone::add_days(zone::day("9999-12-31").unwrap(), 1).is_err());
}
