//! Whom Postgres runs as. Postgres refuses root; so root hands the directory to an unprivileged user and drops to it.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt, chown},
        process::CommandExt,
    },
    path::Path,
    process::Command,
};

use super::Error;

/// The users we drop to, best first: the distribution's for Postgres, else nobody in particular.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];
/// The bit that lets others enter a directory.
const OTHERS_ENTER: u32 = 0o001;

/// An unprivileged user to drop to; `None` inside means that we are one ourselves.
#[derive(Debug, Clone)]
pub(super) struct Account(Option<Unprivileged>);

#[derive(Debug, Clone)]
struct Unprivileged {
    name: String,
    uid: u32,
    gid: u32,
}

impl Account {
    /// The account for this process.
    pub(super) fn here() -> Result<Self, Error> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self(None));
        }
        let passwd = Path::new("/etc/passwd");
        let users = fs::read_to_string(passwd).map_err(|e| Error::directory(passwd, e))?;
        let found = CANDIDATES.iter().find_map(|name| parse(&users, name));
        found.map(|user| Self(Some(user))).ok_or_else(|| {
            Error::directory(
                passwd,
                "Postgres does not run as root, and there is neither a user `postgres` nor `nobody`",
            )
        })
    }

    /// Makes `command` run as this account.
    pub(super) fn run(&self, command: &mut Command) {
        if let Self(Some(user)) = self {
            command.uid(user.uid).gid(user.gid);
        }
    }

    /// Gives `path` to this account.
    pub(super) fn own(&self, path: &Path) -> Result<(), Error> {
        match self {
            Self(None) => Ok(()),
            Self(Some(user)) => chown(path, Some(user.uid), Some(user.gid)).map_err(|e| Error::directory(path, e)),
        }
    }

    /// Checks that this account may enter every directory above `path`. Ours to check only when we drop to another user:
    /// our own failures name the directory by themselves.
    pub(super) fn can_reach(&self, path: &Path) -> Result<(), Error> {
        let Self(Some(user)) = self else { return Ok(()) };
        for directory in path.ancestors().skip(1).filter(|d| !d.as_os_str().is_empty()) {
            let metadata = fs::metadata(directory).map_err(|e| Error::directory(directory, e))?;
            let enters = metadata.mode() & OTHERS_ENTER != 0
                || (metadata.uid() == user.uid && metadata.mode() & 0o100 != 0)
                || (metadata.gid() == user.gid && metadata.mode() & 0o010 != 0);
            if !enters {
                let reason = format!(
                    "Postgres does not run as root but as `{}`, which may not enter it; choose another directory with \
                     --set state_directory=…",
                    user.name
                );
                return Err(Error::directory(directory, reason));
            }
        }
        Ok(())
    }

    /// Whether a file of this owner is ours or this account's.
    pub(super) fn owns(&self, uid: u32) -> bool {
        let Self(user) = self;
        uid == rustix::process::geteuid().as_raw() || user.as_ref().is_some_and(|user| user.uid == uid)
    }
}

/// The line of `name` in the format of passwd(5): name:password:uid:gid:….
fn parse(users: &str, name: &str) -> Option<Unprivileged> {
    users.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [found, _, uid, gid, ..] = fields.as_slice() else { return None };
        if *found != name {
            return None;
        }
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        (uid != 0).then(|| Unprivileged { name: name.to_owned(), uid, gid })
    })
}
