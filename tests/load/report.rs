//! What a bench says: a table for people, `target/bench/NAME.json` for programs, and whether every goal holds.

use std::{fs, path::Path, process::Command};

use serde_json::json;

/// What a figure must be.
#[derive(Debug, Clone, Copy)]
pub enum Goal {
    /// At most this.
    AtMost(f64),
    /// Less than this.
    Below(f64),
    /// At least this.
    AtLeast(f64),
    /// Exactly this.
    Is(f64),
    /// Anything: the figure is only told.
    Told,
}

impl Goal {
    fn holds(self, value: f64) -> bool {
        match self {
            Self::AtMost(goal) => value <= goal,
            Self::Below(goal) => value < goal,
            Self::AtLeast(goal) => value >= goal,
            Self::Is(goal) => (value - goal).abs() < f64::EPSILON,
            Self::Told => true,
        }
    }

    fn words(self) -> Option<String> {
        match self {
            Self::AtMost(goal) => Some(format!("<= {goal}")),
            Self::Below(goal) => Some(format!("< {goal}")),
            Self::AtLeast(goal) => Some(format!(">= {goal}")),
            Self::Is(goal) => Some(format!("= {goal}")),
            Self::Told => None,
        }
    }
}

struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    goal: Goal,
}

/// The figures of one bench.
pub struct Report {
    bench: &'static str,
    figures: Vec<Figure>,
}

impl Report {
    /// An empty report of the bench with this name.
    pub fn new(bench: &'static str) -> Self {
        Self { bench, figures: Vec::new() }
    }

    /// Adds a figure. Names end in their unit, `p50_ms`; a count has the unit `""`.
    pub fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        self.figures.push(Figure { name: name.into(), value, unit, goal });
    }

    /// Prints the table, writes the file, and says whether every goal holds.
    pub fn finish(self) -> bool {
        println!("\n{:<28} {:>14} {:<6} {:>10}", self.bench, "value", "", "goal");
        for figure in &self.figures {
            let verdict = if figure.goal.holds(figure.value) { "" } else { "  MISSED" };
            let goal = figure.goal.words().unwrap_or_default();
            println!("{:<28} {:>14} {:<6} {goal:>10}{verdict}", figure.name, rounded(figure.value), figure.unit);
        }
        let figures: Vec<_> = self
            .figures
            .iter()
            .map(|figure| {
                json!({
                    "name": figure.name, "value": figure.value, "unit": figure.unit,
                    "goal": figure.goal.words(), "holds": figure.goal.holds(figure.value),
                })
            })
            .collect();
        let report = json!({ "bench": self.bench, "commit": commit(), "machine": machine(), "figures": figures });
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|above| above.join("migrations").is_dir());
        let directory = root.expect("a bench lies in the project").join("target/bench");
        fs::create_dir_all(&directory).expect("target is ours to write to");
        let path = directory.join(format!("{}.json", self.bench));
        fs::write(&path, format!("{report:#}\n")).expect("target is ours to write to");
        println!("\n{}", path.display());
        self.figures.iter().all(|figure| figure.goal.holds(figure.value))
    }
}

/// The value at `part` (0 to 1) of `values`, which it sorts; 0 when there are none.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an index into a list that fits in memory"
)]
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * part).round() as usize).copied().unwrap_or(0.0)
}

fn rounded(value: f64) -> String {
    if value.fract() == 0.0 || value.abs() >= 1_000.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn commit() -> String {
    let said = Command::new("git").args(["rev-parse", "--short=12", "HEAD"]).output();
    said.map(|said| String::from_utf8_lossy(&said.stdout).trim().to_owned()).unwrap_or_default()
}

/// Processor, cores and memory in one line.
fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let line = |text: String, key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("").trim_matches([' ', '\t', ':']).to_owned()
    };
    let model = line(read("/proc/cpuinfo"), "model name");
    let memory = line(read("/proc/meminfo"), "MemTotal");
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{model}, {cores} cores, {memory}")
}
