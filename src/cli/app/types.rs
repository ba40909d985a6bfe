//! `krilin app types`: an app's own TypeScript types, beside its manifest or on standard output.

use std::{fmt, fs, path::Path};

use anyhow::{Context as _, anyhow};
use serde::Serialize;

use crate::{
    apps::{
        bundle::{Error, ManifestText},
        types::{TYPES_FILE, typescript},
    },
    cli::context::Context,
};

/// What was written.
#[derive(Debug, Serialize)]
struct Written {
    path: String,
    bytes: usize,
}

impl fmt::Display for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "wrote `{}`", self.path)
    }
}

/// Writes the types of the app in `directory`. Its code is not looked at.
pub(super) fn run(context: &Context, directory: &Path, to_stdout: bool) -> anyhow::Result<()> {
    let text = ManifestText::of_directory(directory)?;
    let loaded = text.load().map_err(|problems| anyhow!(Error::Manifest { path: text.path.clone(), problems }))?;
    let types = typescript(&loaded.manifest);
    if to_stdout {
        return context.print(&types);
    }
    let path = directory.join(TYPES_FILE);
    fs::write(&path, &types).with_context(|| format!("writing `{}`", path.display()))?;
    context.answer(&Written { path: path.display().to_string(), bytes: types.len() })
}
