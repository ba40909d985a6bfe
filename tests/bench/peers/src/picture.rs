//! The picture for the README: four measures as bars, each scaled to its best.

use std::{fmt::Write, fs, path::Path};

use crate::{run::SYSTEMS, table::Table};

/// The panels: the measure, its title, and whether less is better.
const PANELS: &[(&str, &str, bool)] = &[
    ("drain", "drain, jobs/s", false),
    ("enqueue16", "enqueue by 16 producers, jobs/s", false),
    ("bulk", "bulk enqueue, jobs/s", false),
    ("idle_p50_ms", "idle pickup, median ms (less is better)", true),
];

const WIDTH: usize = 380;
const BAR: usize = 18;
const NAME_WIDTH: usize = 140;
const NUMBER_WIDTH: usize = 60;
const OURS: &str = "#2f7d5b";
const THEIRS: &str = "#9aa3ab";
const TEXT: &str = "#768390";

/// Writes `tests/bench/peers.svg`. Plain SQL is not in it: it is no system that one could use instead.
pub fn draw(table: &Table) {
    let systems: Vec<_> = SYSTEMS.iter().filter(|system| system.name != "limit").collect();
    let height = 34 + systems.len() * (BAR + 6);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"12\" fill=\"{TEXT}\">\n",
        WIDTH * 2 + 40,
        height * 2 + 20
    );
    for (number, (measure, title, _)) in PANELS.iter().enumerate() {
        let (x, y) = ((number % 2) * (WIDTH + 40), (number / 2) * (height + 20));
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\"><text y=\"18\" font-weight=\"600\">{title}</text>");
        let values: Vec<_> = systems.iter().map(|system| (system.name, table.median(system.name, measure))).collect();
        let most = values.iter().filter_map(|(_, value)| *value).fold(0.0, f64::max).max(f64::MIN_POSITIVE);
        for (row, (name, value)) in values.iter().enumerate() {
            let Some(value) = value else { continue };
            let top = 30 + row * (BAR + 6);
            let length = value / most * (WIDTH - NAME_WIDTH - NUMBER_WIDTH) as f64;
            let color = if *name == "krilin" { OURS } else { THEIRS };
            let _ = writeln!(
                svg,
                "<text y=\"{}\">{}</text><rect x=\"{NAME_WIDTH}\" y=\"{top}\" width=\"{length:.1}\" height=\"{BAR}\" \
                 rx=\"2\" fill=\"{color}\"/><text x=\"{:.1}\" y=\"{}\">{}</text>",
                top + 13,
                name.replace('_', "-"),
                NAME_WIDTH as f64 + length + 5.0,
                top + 13,
                number_words(*value)
            );
        }
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../peers.svg");
    fs::write(path, svg).expect("the picture can be written");
}

fn number_words(value: f64) -> String {
    if value >= 1_000.0 { format!("{:.1}k", value / 1_000.0) } else { format!("{value:.1}") }
}
