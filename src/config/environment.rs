//! The few facts of the environment that are not keys: where systemd put things, who we are, where programs lie.

use std::{env, ffi::OsString, path::PathBuf};

/// Where systemd lays the credentials of `LoadCredential=`, when it started us.
pub(super) fn credentials_directory() -> Option<PathBuf> {
    env::var_os("CREDENTIALS_DIRECTORY").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The search path for programs.
pub fn program_path() -> OsString {
    env::var_os("PATH").unwrap_or_default()
}

/// Whether standard error goes to systemd's journal.
pub(super) fn under_journal() -> bool {
    env::var_os("JOURNAL_STREAM").is_some()
}

/// The default state directory: systemd's, root's, or the user's (XDG base directory specification).
pub(super) fn state_directory() -> PathBuf {
    if let Some(path) = env::var_os("STATE_DIRECTORY").filter(|path| !path.is_empty()) {
        return PathBuf::from(path);
    }
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/krilin");
    }
    let home = env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let states = env::var_os("XDG_STATE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    states.unwrap_or_else(|| home.join(".local/state")).join("krilin")
}
