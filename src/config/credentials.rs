//! Secrets: files in a directory, never keys, never variables.
//!
//! Looked for in systemd's `$CREDENTIALS_DIRECTORY`, then in `config/credentials/` of the working directory (for
//! development; not in git). One file per credential, its name the credential's name, its trimmed content the secret.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::environment;
use crate::model::secret::Secret;

/// The connection string of the role `krilin_runtime`, which serves and works.
pub const DATABASE_URL: &str = "database_url";
/// The connection string of the role `krilin_owner`, which migrates and publishes.
pub const OWNER_DATABASE_URL: &str = "owner_database_url";
/// Every credential there is, with what it is for.
pub const ALL: [(&str, &str); 2] = [
    (DATABASE_URL, "connection string of `krilin_runtime`; serve and work use it"),
    (OWNER_DATABASE_URL, "connection string of `krilin_owner`; migrations and publishing use it"),
];
/// Where credentials lie in development, relative to the working directory.
pub const DEVELOPMENT_DIRECTORY: &str = "config/credentials";
/// The longest credential, in bytes; a larger file was put there by mistake.
const MAX_BYTES: u64 = 64 * 1024;

/// A credential that was found.
#[derive(Debug, Clone)]
pub struct Credential {
    /// What the file holds, trimmed.
    pub secret: Secret,
    /// The file.
    pub path: PathBuf,
    /// Whether everybody on this machine may read the file. Worth a warning.
    pub world_readable: bool,
}

/// Why a credential cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("reading the credential `{}`: {reason}", path.display())]
pub struct Error {
    path: PathBuf,
    reason: String,
}

/// The directories that are searched, strongest first.
pub fn directories() -> Vec<PathBuf> {
    environment::credentials_directory().into_iter().chain([PathBuf::from(DEVELOPMENT_DIRECTORY)]).collect()
}

/// The credential `name` from the first of `directories` that has it.
pub fn find(name: &str, directories: &[PathBuf]) -> Result<Option<Credential>, Error> {
    for directory in directories {
        if let Some(credential) = read(&directory.join(name))? {
            return Ok(Some(credential));
        }
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Option<Credential>, Error> {
    let fail = |reason: &str| Error { path: path.to_path_buf(), reason: reason.to_owned() };
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if absent(&e) => return Ok(None),
        Err(e) => return Err(fail(&e.to_string())),
    };
    if metadata.len() > MAX_BYTES {
        return Err(fail("it is larger than 64 KiB"));
    }
    let text = fs::read_to_string(path).map_err(|e| fail(&e.to_string()))?;
    if text.trim().is_empty() {
        return Err(fail("it is empty"));
    }
    let world_readable = metadata.permissions().mode() & 0o004 != 0;
    Ok(Some(Credential { secret: Secret::new(text.trim()), path: path.to_path_buf(), world_readable }))
}

fn absent(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}
