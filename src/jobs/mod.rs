//! The kinds of jobs: a file each, a line each in [`POLICIES`] and [`handlers`]. Refuses to start with a policy that does
//! not parse or has no handler.

pub mod app_action;
pub mod retention;

use std::{path::Path, sync::Arc};

use crate::{
    model::policy::{Policies, Policy, PolicyError},
    queue::registry::Handler,
};

/// The policies as built in: the files of `jobs/`, by kind.
pub const POLICIES: [(&str, &str); 2] = [
    ("app_action", include_str!("../../jobs/app_action.toml")),
    ("retention", include_str!("../../jobs/retention.toml")),
];

/// Why the policies cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PoliciesError {
    /// One of them does not parse or hold.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// The operator's file cannot be read.
    #[error("reading {path}: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why not.
        cause: std::io::Error,
    },
    /// The operator's directory has a policy for something that is no kind.
    #[error("{0} is no policy of a known kind")]
    Stray(String),
}

/// All policies: the built-in ones, over which the files of `overlay` lay single fields.
pub fn policies(overlay: Option<&Path>) -> Result<Policies, PoliciesError> {
    let overlays = overlay.map(read_overlays).transpose()?.unwrap_or_default();
    if let Some((kind, path, _)) = overlays.iter().find(|(kind, ..)| POLICIES.iter().all(|(known, _)| known != kind)) {
        tracing::debug!(kind, "no such kind");
        return Err(PoliciesError::Stray(path.clone()));
    }
    let mut policies = Policies::default();
    for (kind, text) in POLICIES {
        let over: Vec<_> =
            overlays.iter().filter(|(over, ..)| over == kind).map(|(_, _, text)| text.as_str()).collect();
        policies = policies.with(kind, Policy::parse(kind, text, &over)?);
    }
    Ok(policies)
}

/// The overlay files as kind, path and text.
fn read_overlays(directory: &Path) -> Result<Vec<(String, String, String)>, PoliciesError> {
    let unreadable = |path: &Path| {
        let path = path.display().to_string();
        move |cause| PoliciesError::Unreadable { path, cause }
    };
    let mut overlays = Vec::new();
    for entry in std::fs::read_dir(directory).map_err(unreadable(directory))? {
        let path = entry.map_err(unreadable(directory))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let kind = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(&path).map_err(unreadable(&path))?;
            overlays.push((kind, path.display().to_string(), text));
        }
    }
    Ok(overlays)
}

/// The handlers of all kinds.
pub fn handlers(actions: app_action::AppAction) -> Vec<(&'static str, Arc<dyn Handler>)> {
    vec![("app_action", Arc::new(actions)), ("retention", Arc::new(retention::Retention))]
}
