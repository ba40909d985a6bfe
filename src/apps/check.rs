//! Checks an app as its author wrote it: a manifest alone, or a directory with its code. Refuses to run code by itself:
//! whoever asks brings a way to list what a module exports.

use std::{fmt, path::Path};

use serde::Serialize;

use super::bundle::{CODE_FILE, Error, ManifestText, read_code};
use crate::model::{
    bundle::Bundle,
    manifest::{self, Problem, ProblemCode},
};

/// Why a module's exports cannot be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// What the engine says.
    pub message: String,
    /// Line and column in the source, from 1, when the engine knows.
    pub at: Option<(u32, u32)>,
}

/// A problem and the file it is in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, as a path from where the check was asked for.
    pub file: String,
    /// What is wrong.
    #[serde(flatten)]
    pub problem: Problem,
}

impl fmt::Display for Finding {
    /// As compilers write it: `manifest.json:12:5 error[E102] /database/tables/0: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Problem { pointer, code, line, column, message } = &self.problem;
        let place = match (line, column) {
            (0, _) => String::new(),
            (line, None) => format!(":{line}"),
            (line, Some(column)) => format!(":{line}:{column}"),
        };
        let sort = if code.is_warning() { "warning" } else { "error" };
        let colon = if pointer.is_empty() { "" } else { " " };
        write!(f, "{}{place} {sort}[{code}]{colon}{pointer}: {message}", self.file)
    }
}

/// What a check found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// The app's id, when the manifest has no errors.
    pub app_id: Option<String>,
    /// Its version, likewise.
    pub version: Option<String>,
    /// How many findings stop the app.
    pub errors: usize,
    /// How many are advice.
    pub warnings: usize,
    /// All of them, in the order of the text.
    pub findings: Vec<Finding>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        if let (Some(app), Some(version)) = (&self.app_id, &self.version) {
            write!(f, "{app} {version}: ")?;
        }
        write!(f, "{}, {}", counted(self.errors, "error"), counted(self.warnings, "warning"))
    }
}

fn counted(count: usize, noun: &str) -> String {
    match count {
        0 => format!("no {noun}s"),
        1 => format!("one {noun}"),
        _ => format!("{count} {noun}s"),
    }
}

/// Checks what is at `path`: a manifest's file alone, or a directory with its code. `exports` lists the functions that a
/// module exports; it is asked at most once, and only when the manifest can be read.
pub async fn check(
    path: &Path,
    exports: impl AsyncFnOnce(&Bundle) -> Result<Vec<String>, Flaw>,
) -> Result<Report, Error> {
    if !path.is_dir() {
        let text = ManifestText::of_file(path)?;
        return Ok(manifest_report(&text).0);
    }
    let text = ManifestText::of_directory(path)?;
    let (mut report, loaded) = manifest_report(&text);
    let file = path.join(CODE_FILE).display().to_string();
    let code = match read_code(path) {
        Ok(code) => code,
        Err(error) => {
            let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
            report.add(&file, vec![Problem::new(ProblemCode::BadCode, "", format!("{error}{cause}"))]);
            return Ok(report);
        }
    };
    match exports(&code).await {
        Ok(names) => {
            if let Some(loaded) = loaded {
                let problems = loaded.positions.locate(manifest::check_exports(&loaded.manifest, &names));
                report.add(&text.path.display().to_string(), problems);
            }
        }
        Err(Flaw { message, at }) => {
            let mut problem = Problem::new(ProblemCode::BadCode, "", message);
            problem.line = at.map_or(0, |(line, _)| line);
            problem.column = at.map(|(_, column)| column);
            report.add(&file, vec![problem]);
        }
    }
    Ok(report)
}

fn manifest_report(text: &ManifestText) -> (Report, Option<manifest::Loaded>) {
    let mut report = Report { app_id: None, version: None, errors: 0, warnings: 0, findings: Vec::new() };
    let file = text.path.display().to_string();
    match text.load() {
        Ok(loaded) => {
            report.app_id = Some(loaded.manifest.metadata.id.to_string());
            report.version = Some(loaded.manifest.metadata.version.to_string());
            report.add(&file, loaded.warnings.clone());
            (report, Some(loaded))
        }
        Err(problems) => {
            report.add(&file, problems);
            (report, None)
        }
    }
}

impl Report {
    fn add(&mut self, file: &str, problems: Vec<Problem>) {
        self.warnings += problems.iter().filter(|problem| problem.code.is_warning()).count();
        self.errors += problems.iter().filter(|problem| !problem.code.is_warning()).count();
        self.findings.extend(problems.into_iter().map(|problem| Finding { file: file.to_owned(), problem }));
        // Stable, so that files stay in the order in which they were read.
        self.findings.sort_by_key(|finding| (finding.file.ends_with(CODE_FILE), finding.problem.line));
    }
}
