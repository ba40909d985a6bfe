//! What lies where in a cluster's directory, and who may enter.

use std::{
    fs::{self, DirBuilder, Permissions},
    io::ErrorKind,
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use super::{Error, account::Account};

/// `sun_path` of unix(7) has 108 bytes, one for the terminating zero.
pub(super) const SOCKET_PATH_MAX_BYTES: usize = 107;
/// What Postgres calls its socket on the port of [`super::settings`].
const SOCKET_NAME: &str = ".s.PGSQL.5432";
/// Only the owner reads, writes and enters.
const PRIVATE: u32 = 0o700;

/// The paths of one cluster.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    /// Everything of the cluster; private to whom Postgres runs as.
    pub(super) root: PathBuf,
    /// Postgres' data directory.
    pub(super) data: PathBuf,
    /// The directory of the socket.
    pub(super) socket: PathBuf,
    /// What Postgres says.
    pub(super) log: PathBuf,
}

impl Layout {
    pub(super) fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            data: root.join("data"),
            socket: root.join("socket"),
            log: root.join("postgres.log"),
        }
    }

    /// Makes the directories for `account`, privately, and refuses a directory that somebody else prepared.
    pub(super) fn prepare(&self, account: &Account) -> Result<(), Error> {
        let socket = self.socket.join(SOCKET_NAME);
        let length = socket.as_os_str().len();
        if length > SOCKET_PATH_MAX_BYTES {
            return Err(Error::SocketPath { path: socket, length });
        }
        if let Some(parent) = self.root.parent() {
            fs::create_dir_all(parent).map_err(|e| Error::directory(parent, e))?;
        }
        account.can_reach(&self.root)?;
        for directory in [&self.root, &self.socket] {
            match DirBuilder::new().mode(PRIVATE).create(directory) {
                Ok(()) => account.own(directory)?,
                Err(e) if e.kind() == ErrorKind::AlreadyExists => check_owner(directory, account)?,
                Err(e) => return Err(Error::directory(directory, e)),
            }
            fs::set_permissions(directory, Permissions::from_mode(PRIVATE))
                .map_err(|e| Error::directory(directory, e))?;
        }
        Ok(())
    }

    /// The major version of the data, when there is data.
    pub(super) fn major(&self) -> Option<u32> {
        fs::read_to_string(self.data.join("PG_VERSION")).ok()?.trim().parse().ok()
    }
}

fn check_owner(directory: &Path, account: &Account) -> Result<(), Error> {
    let metadata = fs::symlink_metadata(directory).map_err(|e| Error::directory(directory, e))?;
    if !metadata.is_dir() || !account.owns(metadata.uid()) {
        return Err(Error::directory(directory, "it belongs to another user"));
    }
    account.own(directory)
}
