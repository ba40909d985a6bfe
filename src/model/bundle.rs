//! An app's code, named by what is in it.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};

/// The SHA-256 of a bundle's source, in lowercase hex. Two bundles with the same hash hold the same code.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct BundleHash(Arc<str>);

impl BundleHash {
    /// The hash as 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BundleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BundleHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BundleHash({})", self.0)
    }
}

/// One ES module with its name (`app.js`, as it appears in errors) and hash. Cheap to clone.
#[derive(Clone)]
pub struct Bundle {
    /// SHA-256 of `source`.
    pub hash: BundleHash,
    /// The file name that stack traces and compile errors show.
    pub name: Arc<str>,
    /// The module's JavaScript.
    pub source: Arc<str>,
}

impl Bundle {
    /// A bundle of `source` under the file name `name`.
    pub fn new(name: &str, source: &str) -> Self {
        let hex = format!("{:x}", Sha256::digest(source.as_bytes()));
        Self { hash: BundleHash(hex.into()), name: name.into(), source: source.into() }
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bundle({}, {})", self.name, self.hash)
    }
}
