//! One `krilin up` for one state directory. The operating system drops the lock with the process, however it ends.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use super::Error;

/// The name of the lock file in the state directory.
const NAME: &str = "krilin.lock";

/// The right to use a state directory, until it is dropped.
#[derive(Debug)]
pub struct StateLock {
    /// The directory.
    pub directory: PathBuf,
    _file: File,
}

impl StateLock {
    /// Takes `directory`, which is made when it is missing; who has it already is named in the error.
    pub fn acquire(directory: &Path) -> Result<Self, Error> {
        let fail = |e: std::io::Error| Error::directory(directory, e);
        fs::create_dir_all(directory).map_err(fail)?;
        let path = directory.join(NAME);
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(fail)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _ = file.read_to_string(&mut pid);
                return Err(Error::Locked { path: directory.to_path_buf(), pid: pid.trim().to_owned() });
            }
            Err(TryLockError::Error(e)) => return Err(fail(e)),
        }
        file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(fail)?;
        Ok(Self { directory: directory.to_path_buf(), _file: file })
    }
}
