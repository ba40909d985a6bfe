//! The few facts of the environment that are not keys: where systemd put things, who we are, where programs lie, what
//! OpenTelemetry's standard names.

use std::{env, ffi::OsString, io, net::TcpListener, path::PathBuf};

use listenfd::ListenFd;

/// Where systemd lays the credentials of `LoadCredential=`, when it started us.
pub(super) fn credentials_directory() -> Option<PathBuf> {
    env::var_os("CREDENTIALS_DIRECTORY").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// The search path for programs.
pub fn program_path() -> OsString {
    env::var_os("PATH").unwrap_or_default()
}

/// Where the service manager listens for how things stand (`Type=notify`), when there is one.
pub fn notify_socket() -> Option<OsString> {
    env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())
}

/// The socket that the service manager listens on for us (`LISTEN_FDS`, sd_listen_fds(3)), when it started us with one.
/// Refuses more than one, and a socket that is not TCP's. Takes it out of the environment, so to be called once, while the
/// process has one thread. Closed on exec: children have nothing of it.
pub fn inherited_listener() -> io::Result<Option<TcpListener>> {
    let mut given = ListenFd::from_env();
    if given.len() > 1 {
        return Err(io::Error::other(format!("{} sockets were passed in; one is served", given.len())));
    }
    let Some(listener) = given.take_tcp_listener(0)? else { return Ok(None) };
    listener.set_nonblocking(true)?;
    Ok(Some(listener))
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

/// Where OpenTelemetry's standard has the collector's address.
pub(super) fn collector() -> Option<String> {
    text("OTEL_EXPORTER_OTLP_ENDPOINT").filter(|endpoint| !endpoint.is_empty())
}

/// What OpenTelemetry's standard says that this process is called.
pub(super) fn service_name() -> Option<String> {
    text("OTEL_SERVICE_NAME").filter(|name| !name.is_empty())
}

fn text(name: &str) -> Option<String> {
    env::var_os(name)?.into_string().ok()
}
