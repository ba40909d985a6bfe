//! The picture for the README: a group of horizontal bars for each measure, ours in colour. Text stays text, every value is
//! also told in words to who cannot see it, and a dark page has light letters. Refuses to know where values come from: a
//! test draws it from a fixed small table.

use std::fmt::Write;

/// One measure: a bar for each system that has a value, scaled to the longest.
pub struct Panel<'a> {
    /// What was measured, with its unit.
    pub title: &'a str,
    /// The systems in their order, and their values.
    pub bars: Vec<(&'a str, f64)>,
}

/// Panels beside each other.
const COLUMNS: usize = 2;
/// The width of a panel, and the space between two, in user units as all that follow.
const WIDTH: usize = 380;
const GAP: usize = 40;
/// Where bars begin: names stand before it. Values stand behind the bars.
const NAMES: usize = 145;
const NUMBERS: usize = 55;
/// Of a row, and of its bar in it.
const ROW: usize = 24;
const BAR: usize = 16;
/// Above the first row of a panel, and below its last.
const HEAD: usize = 30;
const FOOT: usize = 20;

/// Letters have at least 4.5 : 1, bars 3 : 1 against the page in both schemes (WCAG 2.2, 1.4.3 and 1.4.11).
const STYLE: &str = "text{fill:#1f2328}.value{fill:#59636e}.theirs{fill:#7d8792}.ours{fill:#1a7f5a}.us{font-weight:700}\
    @media(prefers-color-scheme:dark){text{fill:#e6edf3}.value{fill:#9da7b1}.theirs{fill:#6b7580}.ours{fill:#3fb68b}}";

/// The picture of `panels`, in which the bars of the system `ours` stand out.
pub fn draw(panels: &[Panel<'_>], ours: &str) -> String {
    let rows = panels.iter().map(|panel| panel.bars.len()).max().unwrap_or(0);
    let panel_height = HEAD + rows * ROW + FOOT;
    let (width, height) = (COLUMNS * WIDTH + (COLUMNS - 1) * GAP, panels.len().div_ceil(COLUMNS) * panel_height);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" role=\"img\" \
         aria-labelledby=\"title words\" font-family=\"system-ui, sans-serif\" font-size=\"12\">\n\
         <title id=\"title\">{} beside other job systems</title>\n<desc id=\"words\">{}</desc>\n<style>{STYLE}</style>\n",
        escaped(ours),
        words(panels),
    );
    for (number, panel) in panels.iter().enumerate() {
        let (x, y) = ((number % COLUMNS) * (WIDTH + GAP), (number / COLUMNS) * panel_height);
        let title = escaped(panel.title);
        let _ =
            writeln!(svg, "<g transform=\"translate({x} {y})\">\n<text y=\"18\" font-weight=\"600\">{title}</text>");
        let longest = panel.bars.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
        for (row, (name, value)) in panel.bars.iter().enumerate() {
            bar(&mut svg, HEAD + row * ROW, (name, *value / longest), *name == ours, &short(*value));
        }
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

/// One system's name, bar and value; `part` is the bar's length, of the longest.
#[expect(clippy::cast_precision_loss, reason = "lengths of a picture")]
fn bar(svg: &mut String, top: usize, (name, part): (&str, f64), is_ours: bool, value: &str) {
    let (baseline, length) = (top + 12, (part * (WIDTH - NAMES - NUMBERS) as f64).max(1.0));
    let (us, class) = if is_ours { (" class=\"us\"", "ours") } else { ("", "theirs") };
    let _ = writeln!(
        svg,
        "<text y=\"{baseline}\"{us}>{}</text><rect class=\"{class}\" x=\"{NAMES}\" y=\"{top}\" width=\"{length:.1}\" \
         height=\"{BAR}\" rx=\"2\"/><text class=\"value\" x=\"{:.1}\" y=\"{baseline}\">{value}</text>",
        escaped(name),
        NAMES as f64 + length + 5.0,
    );
}

/// All of it as sentences.
fn words(panels: &[Panel<'_>]) -> String {
    let sentences = panels.iter().map(|panel| {
        let bars: Vec<_> = panel.bars.iter().map(|(name, value)| format!("{name} {}", short(*value))).collect();
        escaped(&format!("{}: {}.", panel.title, bars.join(", ")))
    });
    sentences.collect::<Vec<_>>().join(" ")
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// A number of about three digits.
fn short(value: f64) -> String {
    match value {
        v if v >= 100_000.0 => format!("{:.0}k", v / 1_000.0),
        v if v >= 1_000.0 => format!("{:.1}k", v / 1_000.0),
        v if v >= 100.0 => format!("{v:.0}"),
        v => format!("{v:.1}"),
    }
}
