//! Where `initdb` and `postgres` are installed. Distributions keep them out of `PATH`, several versions side by side.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::Error;
use crate::config::program_path;

/// The oldest major version that we run and test on.
pub const OLDEST_MAJOR: u32 = 15;
/// Where Debian and Ubuntu install each major version: `/usr/lib/postgresql/15/bin`.
const DEBIAN: &str = "/usr/lib/postgresql";

/// One installed Postgres.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// The directory that holds `initdb` and `postgres`.
    pub directory: PathBuf,
    /// The major version.
    pub major: u32,
}

impl Binaries {
    /// The installed Postgres for data of version `major`, or the newest one for new data.
    pub fn find(major: Option<u32>) -> Result<Self, Error> {
        let mut found: Vec<Self> = directories().into_iter().filter_map(Self::at).collect();
        if found.is_empty() {
            return Err(Error::NoBinaries(format!("PATH, {DEBIAN}/*/bin and `pg_config --bindir`")));
        }
        found.sort_by_key(|binaries| std::cmp::Reverse(binaries.major));
        let installed = found.iter().map(|b| b.major.to_string()).collect::<Vec<_>>().join(", ");
        let fits = |binaries: &&Self| major.map_or(binaries.major >= OLDEST_MAJOR, |major| binaries.major == major);
        found.iter().find(fits).cloned().ok_or_else(|| match major {
            Some(major) => {
                Error::Version { needed: format!("the data was made by Postgres {major}"), installed, major }
            }
            None => Error::Version {
                needed: format!("Postgres {OLDEST_MAJOR} or newer is needed"),
                installed,
                major: OLDEST_MAJOR,
            },
        })
    }

    fn at(directory: PathBuf) -> Option<Self> {
        if !directory.join("initdb").is_file() {
            return None;
        }
        let output = Command::new(directory.join("postgres")).arg("--version").output().ok()?;
        let major = parse_major(&String::from_utf8_lossy(&output.stdout))?;
        Some(Self { directory, major })
    }
}

/// From `postgres (PostgreSQL) 15.8 (Debian …)`.
fn parse_major(version: &str) -> Option<u32> {
    let number = version.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    number.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// The places to look, each once. Links are followed first: `/usr/local/bin/initdb` often leads to the real directory.
fn directories() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = env::split_paths(&program_path())
        .filter_map(|directory| real_directory(&directory.join("initdb")))
        .chain(versions(Path::new(DEBIAN)))
        .chain(pg_config())
        .collect();
    let mut seen = Vec::new();
    places.retain(|place| {
        let new = !seen.contains(place);
        seen.push(place.clone());
        new
    });
    places
}

fn real_directory(program: &Path) -> Option<PathBuf> {
    fs::canonicalize(program).ok()?.parent().map(Path::to_path_buf)
}

fn versions(root: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    entries.filter_map(|entry| real_directory(&entry.path().join("bin/initdb"))).collect()
}

fn pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let directory = String::from_utf8(output.stdout).ok()?;
    real_directory(&Path::new(directory.trim()).join("initdb"))
}

#[cfg(test)]
mod tests {
    use super::parse_major;

    #[test]
    fn the_major_version_is_read_from_every_distributions_words() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.8 (Debian 15.8-0+deb12u1)"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(parse_major("postgres (PostgreSQL)"), None);
    }
}
