//! A private Postgres: initialised, started and stopped by us from the binaries that are installed. Processes and files
//! only; not a line of SQL.
//!
//! The cluster listens on a Unix socket in a directory that only its owner may enter, and nowhere else: on a machine with
//! many users, that directory's permission is the password. As root, Postgres runs as an unprivileged user, because it
//! refuses to run as root.
//!
//! `postgresql_embedded` does more (it downloads a Postgres when none is there) and by that something we refuse: a
//! machine without internet, or one whose distribution patches its Postgres, must run what its operator installed.

mod account;
mod binaries;
mod directory;
mod lock;
mod server;
mod settings;

use std::{
    fmt::{self, Write},
    path::{Path, PathBuf},
};

pub use self::{
    binaries::{Binaries, OLDEST_MAJOR},
    lock::StateLock,
    server::{Cluster, is_running},
    settings::Durability,
};

/// The database that Krilin lives in, in a private cluster.
pub const DATABASE: &str = "krilin";
/// The superuser of a private cluster.
pub const SUPERUSER: &str = "postgres";

/// Why there is no cluster. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No Postgres is installed.
    #[error(
        "no Postgres server is installed (looked for `initdb` and `postgres` in {0}); on Debian and Ubuntu: apt-get \
         install postgresql; or give a server of your own as the credential `database_url`"
    )]
    NoBinaries(String),
    /// Postgres is there, but not the one the data needs.
    #[error("{needed}, but what is installed is {installed}; on Debian and Ubuntu: apt-get install postgresql-{major}")]
    Version {
        /// What is needed and why.
        needed: String,
        /// The versions found.
        installed: String,
        /// The major version to install.
        major: u32,
    },
    /// The directory cannot be made, entered or written.
    #[error("the directory `{}` cannot be used: {reason}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why, and what to do.
        reason: String,
    },
    /// The socket's path does not fit into the operating system's structure for it.
    #[error(
        "the socket `{}` would have a path of {length} bytes and the system allows {max}; choose a shorter directory with \
         --set state_directory=…", path.display(), max = directory::SOCKET_PATH_MAX_BYTES
    )]
    SocketPath {
        /// The path that is too long.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Another process has the directory.
    #[error("`{}` is in use by another krilin (process {pid}); stop that one, or choose another directory with \
             --set state_directory=…", path.display())]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Who has it.
        pid: String,
    },
    /// `initdb` or `postgres` could not be run or ended; its own words follow.
    #[error("{program} did not succeed: {words}")]
    Program {
        /// `initdb` or `postgres`.
        program: &'static str,
        /// The end of what it said.
        words: String,
    },
    /// Postgres neither became ready nor ended.
    #[error("Postgres was not ready within {seconds} s; its log is `{}`", log.display())]
    NotReady {
        /// How long we waited.
        seconds: u64,
        /// Where to look.
        log: PathBuf,
    },
}

impl Error {
    fn directory(path: &Path, reason: impl fmt::Display) -> Self {
        Self::Directory { path: path.to_path_buf(), reason: reason.to_string() }
    }
}

/// The connection string of `role` in `database` of the cluster in `directory`, whether it runs or not.
pub fn url(directory: &Path, role: &str, database: &str) -> String {
    let socket = directory::Layout::new(directory).socket;
    format!("postgres://{role}@localhost/{database}?host={}", percent_encoded(&socket))
}

/// Whether a cluster has been made in `directory`.
pub fn exists(directory: &Path) -> bool {
    directory::Layout::new(directory).data.join("PG_VERSION").exists()
}

/// RFC 3986: everything but the unreserved characters as `%XX`.
fn percent_encoded(path: &Path) -> String {
    let mut text = String::new();
    for byte in path.as_os_str().as_encoded_bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(byte) {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}
