//! An app as it lies in a directory, or in this binary: a manifest, `app.js`, perhaps `test.js`. Refuses files that are too
//! long, text that is not UTF-8, and two manifests in one directory.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::model::{
    bundle::Bundle,
    manifest::{self, Format, Loaded, MANIFEST_MAX_BYTES, Manifest, Problem},
};

/// The longest `app.js` and the longest `test.js`. The sandbox takes no more.
pub const CODE_MAX_BYTES: usize = 1 << 20;

/// The file that holds an app's code.
pub const CODE_FILE: &str = "app.js";

/// The file that holds an app's own tests.
pub const TEST_FILE: &str = "test.js";

/// The files that may hold the manifest. A directory has one of them.
pub const MANIFEST_FILES: [(&str, Format); 3] =
    [("manifest.json", Format::Json), ("manifest.yaml", Format::Yaml), ("manifest.yml", Format::Yaml)];

/// The apps in this binary: id, manifest, code, tests.
const EMBEDDED: [(&str, &str, &str, Option<&str>); 1] = [(
    "habit-tracker",
    include_str!("../../apps/habit-tracker/manifest.json"),
    include_str!("../../apps/habit-tracker/app.js"),
    Some(include_str!("../../apps/habit-tracker/test.js")),
)];

/// An app that can be published: its manifest has no errors. Whether the code has what the manifest names is
/// [`super::check`]'s question.
#[derive(Debug, Clone)]
pub struct AppBundle {
    /// The long form.
    pub manifest: Manifest,
    /// `app.js`.
    pub code: Bundle,
    /// `test.js`, if there is one.
    pub test: Option<String>,
}

/// Why an app cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system says no.
    #[error("reading `{}`", path.display())]
    Read {
        /// Which file or directory.
        path: PathBuf,
        /// What it says.
        source: io::Error,
    },
    /// A file is too long.
    #[error("`{}` is over {max} bytes long", path.display())]
    TooLong {
        /// Which file.
        path: PathBuf,
        /// The most bytes it may have.
        max: usize,
    },
    /// No manifest, or more than one.
    #[error("`{}` {what}", directory.display())]
    Layout {
        /// Which directory.
        directory: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The manifest has errors.
    #[error("{}", problems.iter().map(|p| format!("{}:{p}", path.display())).collect::<Vec<_>>().join("\n"))]
    Manifest {
        /// Which file.
        path: PathBuf,
        /// All of them, in the order of the text.
        problems: Vec<Problem>,
    },
}

/// A manifest's text and where it is from.
#[derive(Debug, Clone)]
pub struct ManifestText {
    /// The file.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
    /// How it is written.
    pub format: Format,
}

impl ManifestText {
    /// Reads a manifest's file; one that does not end in `.yaml` or `.yml` is taken for JSON.
    pub fn of_file(path: &Path) -> Result<Self, Error> {
        let is_yaml = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("yaml") || e.eq_ignore_ascii_case("yml"));
        let format = if is_yaml { Format::Yaml } else { Format::Json };
        Ok(Self { path: path.to_owned(), text: read(path, MANIFEST_MAX_BYTES)?, format })
    }

    /// Finds and reads the manifest of a directory.
    pub fn of_directory(directory: &Path) -> Result<Self, Error> {
        let layout = |what: String| Error::Layout { directory: directory.to_owned(), what };
        let found: Vec<&str> =
            MANIFEST_FILES.iter().map(|(name, _)| *name).filter(|name| directory.join(name).exists()).collect();
        match found[..] {
            [name] => Self::of_file(&directory.join(name)),
            [] if !directory.exists() => Err(layout("does not exist".to_owned())),
            [] => Err(layout("has no manifest: expected `manifest.json` or `manifest.yaml`".to_owned())),
            _ => Err(layout(format!("has more than one manifest: `{}`; keep one", found.join("`, `")))),
        }
    }

    /// The manifest, or all of its problems.
    pub fn load(&self) -> Result<Loaded, Vec<Problem>> {
        manifest::load(&self.text, self.format)
    }
}

/// Reads the app in a directory.
pub fn read_dir(directory: &Path) -> Result<AppBundle, Error> {
    let written = ManifestText::of_directory(directory)?;
    let loaded = written.load().map_err(|problems| Error::Manifest { path: written.path.clone(), problems })?;
    let test_path = directory.join(TEST_FILE);
    let test = test_path.exists().then(|| read(&test_path, CODE_MAX_BYTES)).transpose()?;
    Ok(AppBundle { manifest: loaded.manifest, code: read_code(directory)?, test })
}

/// Reads the code in a directory.
pub fn read_code(directory: &Path) -> Result<Bundle, Error> {
    Ok(Bundle::new(CODE_FILE, &read(&directory.join(CODE_FILE), CODE_MAX_BYTES)?))
}

/// The app of this id that is in this binary.
pub fn embedded(app_id: &str) -> Result<Option<AppBundle>, Error> {
    let Some((_, manifest, code, test)) = EMBEDDED.iter().find(|(id, ..)| *id == app_id) else { return Ok(None) };
    let path = PathBuf::from(app_id).join("manifest.json");
    let loaded = manifest::load(manifest, Format::Json).map_err(|problems| Error::Manifest { path, problems })?;
    let code = Bundle::new(CODE_FILE, code);
    Ok(Some(AppBundle { manifest: loaded.manifest, code, test: test.map(str::to_owned) }))
}

/// The ids of the apps in this binary.
pub fn embedded_ids() -> impl Iterator<Item = &'static str> {
    EMBEDDED.iter().map(|(id, ..)| *id)
}

/// A file as text, of at most `max` bytes.
fn read(path: &Path, max: usize) -> Result<String, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    // One byte more than allowed tells that there are more, whatever the file system says about its length.
    File::open(path).map_err(failed)?.take(max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > max {
        return Err(Error::TooLong { path: path.to_owned(), max });
    }
    String::from_utf8(bytes).map_err(|_| failed(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")))
}
