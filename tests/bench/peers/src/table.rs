//! Every value of every round; medians, spreads and ratios from them.

use std::{collections::BTreeMap, fmt::Write};

use crate::{
    picture::Panel,
    report::{Goal, Report},
    run::SYSTEMS,
};

/// Values by measure and system, in the order they came.
#[derive(Default)]
pub struct Table(BTreeMap<(String, &'static str), Vec<f64>>);

/// The measures of the printed table, and how their numbers are written.
const MEASURES: &[(&str, &str)] = &[
    ("enqueue1", "enqueue, 1 producer, /s"),
    ("enqueue16", "enqueue, 16 producers, /s"),
    ("enqueue16_coalesced", "the same, coalesced, /s"),
    ("http64", "enqueue over HTTP, 64 connections, /s"),
    ("bulk", "bulk enqueue, /s"),
    ("drain", "drain 60,000, recorded, /s"),
    ("transactional", "a transaction a job, /s"),
    ("idle_p50_ms", "idle pickup p50, ms"),
    ("idle_p99_ms", "idle pickup p99, ms"),
    ("load200_p50_ms", "200 jobs/s, pickup p50, ms"),
    ("load200_p99_ms", "200 jobs/s, pickup p99, ms"),
    ("rss_idle_mb", "memory idle, MB"),
    ("rss_draining_mb", "memory draining, MB"),
    ("enqueue1_wal_bytes_per_job", "WAL per job enqueued, bytes"),
    ("drain_wal_bytes_per_job", "WAL per job drained, bytes"),
    ("enqueue1_commits_per_job", "commits per job enqueued"),
    ("drain_commits_per_job", "commits per job drained"),
];

/// The panels of the picture: measures and their titles.
const PANELS: &[(&str, &str)] = &[
    ("drain", "Drain, jobs/s"),
    ("bulk", "Bulk enqueue, jobs/s"),
    ("enqueue16", "Enqueue by 16 producers, jobs/s"),
    ("enqueue1", "Enqueue by one producer, jobs/s"),
    ("idle_p50_ms", "Idle pickup, median ms (less is better)"),
    ("load200_p99_ms", "Pickup at 200 jobs/s, p99 ms (less is better)"),
];

/// A ratio: Krilin's median of one measure over another's median of one, and its goal.
type Ratio = (&'static str, &'static str, (&'static str, &'static str), f64);

const AT_LEAST: &[Ratio] = &[
    ("drain_vs_graphile_worker_rs", "drain", ("graphile_worker_rs", "drain"), 1.2),
    ("drain_vs_apalis_postgres", "drain", ("apalis_postgres", "drain"), 3.5),
    ("drain_vs_awa", "drain", ("awa", "drain"), 3.5),
    ("drain_vs_limit", "drain", ("limit", "drain"), 0.8),
    ("bulk_vs_apalis_postgres", "bulk", ("apalis_postgres", "bulk"), 2.5),
    ("bulk_vs_unnest", "bulk", ("limit", "bulk"), 0.65),
    ("enqueue16_vs_apalis_postgres", "enqueue16", ("apalis_postgres", "enqueue16"), 6.0),
    ("enqueue16_vs_limit", "enqueue16", ("limit", "enqueue16_coalesced"), 0.65),
    ("enqueue1_vs_apalis_postgres", "enqueue1", ("apalis_postgres", "enqueue1"), 1.3),
    ("http64_vs_enqueue_limit", "http64", ("limit", "enqueue16_coalesced"), 0.5),
    ("transactional_vs_limit", "transactional", ("limit", "transactional"), 0.7),
];

impl Table {
    /// Notes one value.
    pub fn add(&mut self, system: &'static str, measure: &str, value: f64) {
        self.0.entry((measure.to_owned(), system)).or_default().push(value);
    }

    /// The median of a system's values.
    pub fn median(&self, system: &str, measure: &str) -> Option<f64> {
        let mut values = self.values(system, measure)?.to_vec();
        values.sort_by(f64::total_cmp);
        Some(values[values.len() / 2])
    }

    fn values(&self, system: &str, measure: &str) -> Option<&[f64]> {
        let (_, values) = self.0.iter().find(|((m, s), _)| m == measure && *s == system)?;
        Some(values)
    }

    /// The median and, in brackets, the smallest and largest value.
    fn cell(&self, system: &str, measure: &str) -> String {
        let Some(values) = self.values(system, measure) else { return "–".to_owned() };
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        let most = values.iter().copied().fold(0.0, f64::max);
        let median = self.median(system, measure).unwrap_or(f64::NAN);
        if values.len() == 1 {
            short(median)
        } else {
            format!("{} ({}–{})", short(median), short(least), short(most))
        }
    }

    /// The table for people, in Markdown.
    pub fn words(&self) -> String {
        let systems: Vec<_> = SYSTEMS
            .iter()
            .map(|system| system.name)
            .filter(|name| self.0.keys().any(|(_, system)| system == name))
            .collect();
        let mut words = format!("| | {} |\n|---|{}\n", systems.join(" | "), "---:|".repeat(systems.len()));
        for (measure, title) in MEASURES {
            let cells: Vec<_> = systems.iter().map(|system| self.cell(system, measure)).collect();
            let _ = writeln!(words, "| {title} | {} |", cells.join(" | "));
        }
        words
    }

    /// What the picture shows: the medians of Krilin and of its peers. Plain SQL is not in it: it is no system that one could
    /// use instead.
    pub fn panels(&self) -> Vec<Panel<'static>> {
        let systems = || SYSTEMS.iter().filter(|system| system.name != "limit");
        let panel = |(measure, title): &(&str, &'static str)| {
            let bars = systems().filter_map(|system| Some((system.name, self.median(system.name, measure)?)));
            Panel { title, bars: bars.collect() }
        };
        PANELS.iter().map(panel).collect()
    }

    /// The ratios with their goals, then every median.
    pub fn figures(&self, report: &mut Report) {
        for (name, ours, (other, theirs), goal) in AT_LEAST {
            if let (Some(ours), Some(theirs)) = (self.median("krilin", ours), self.median(other, theirs)) {
                report.figure(*name, ours / theirs, "x", Goal::AtLeast(*goal));
            }
        }
        for (name, measure) in
            [("idle_p50_vs_best_peer", "idle_p50_ms"), ("load200_p99_vs_best_peer", "load200_p99_ms")]
        {
            let peers = SYSTEMS.iter().filter(|system| system.is_peer());
            let best = peers.filter_map(|system| self.median(system.name, measure)).min_by(f64::total_cmp);
            if let (Some(ours), Some(best)) = (self.median("krilin", measure), best) {
                report.figure(name, ours / best, "x", Goal::AtMost(1.0));
            }
        }
        for (measure, most) in [("rss_idle_mb", 15.0), ("rss_draining_mb", 25.0)] {
            if let Some(ours) = self.median("krilin", measure) {
                report.figure(measure, ours, "MB", Goal::AtMost(most));
            }
        }
        for system in SYSTEMS {
            for (measure, _) in MEASURES {
                if let Some(median) = self.median(system.name, measure) {
                    report.figure(format!("{}.{measure}", system.name), median, "", Goal::Told);
                }
            }
        }
    }
}

/// A number with three digits that mean something.
fn short(value: f64) -> String {
    match value {
        v if v >= 100_000.0 => format!("{:.0}k", v / 1_000.0),
        v if v >= 10_000.0 => format!("{:.1}k", v / 1_000.0),
        v if v >= 100.0 => format!("{v:.0}"),
        v if v >= 10.0 => format!("{v:.1}"),
        v => format!("{v:.2}"),
    }
}
