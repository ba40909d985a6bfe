//! The load order, and who said what: each value remembers its source, so that an error and `krilin config show` can tell.

use std::path::PathBuf;

use figment::{
    Figment, Metadata, Profile, Provider,
    providers::{Env, Format as _, Toml},
    value::{Dict, Map, Value},
};
use serde::Serialize;

use super::Config;
use crate::model::near;

/// The reference: every key with its default.
pub const DEFAULTS: &str = include_str!("../../config/krilin.toml");
/// Where the operator's own file is looked for; a missing file is no error.
pub const FILE: &str = "/etc/krilin/krilin.toml";
/// What environment variables for keys begin with.
const PREFIX: &str = "KRILIN_";
/// Variables with our prefix that are no keys: they belong to the test suite.
const NOT_KEYS: &str = "test_";

/// The name of the weakest layer.
const BUILT_IN: &str = "the built-in defaults";

/// Where to look, beyond the defaults.
#[derive(Debug, Clone)]
pub struct Layers {
    /// The operator's file; `required` files must exist.
    pub file: PathBuf,
    /// Whether a missing `file` is an error.
    pub required: bool,
    /// Whether to read `KRILIN_…` variables.
    pub environment: bool,
    /// Keys from the command line: (`log.level`, `debug`), weakest first.
    pub flags: Vec<(String, String)>,
}

impl Default for Layers {
    fn default() -> Self {
        Self { file: PathBuf::from(FILE), required: false, environment: true, flags: Vec::new() }
    }
}

/// Why the configuration does not hold: where, which key, and what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file was asked for by name and cannot be read.
    #[error("reading the configuration `{0}`: {1}")]
    File(PathBuf, std::io::Error),
    /// A key that no version of the reference has.
    #[error("{source_name}: `{key}` is not a key{hint}")]
    UnknownKey {
        /// The layer that holds it.
        source_name: String,
        /// The dotted key.
        key: String,
        /// What to do, beginning with a separator.
        hint: String,
    },
    /// A value of the wrong type or form, or a file that is no TOML.
    #[error("{source_name}: {key}{message}")]
    Value {
        /// The layer that holds it.
        source_name: String,
        /// The dotted key with a colon, or nothing.
        key: String,
        /// What is wrong.
        message: String,
    },
}

/// One effective value and where it came from.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// The dotted key.
    pub key: String,
    /// Its value.
    pub value: serde_json::Value,
    /// The layer that decided.
    pub source: String,
}

/// The configuration with its provenance.
#[derive(Debug)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// Every effective value with its source, in alphabetical order of keys.
    pub entries: Vec<Entry>,
}

/// One key from the command line.
struct Flag(String, Value);

impl Provider for Flag {
    fn metadata(&self) -> Metadata {
        Metadata::named("the command line")
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        let dict = figment::util::nest(&self.0, self.1.clone()).into_dict().unwrap_or_default();
        Ok(Map::from([(Profile::Default, dict)]))
    }
}

impl Entry {
    /// Whether nobody chose this value.
    pub fn is_default(&self) -> bool {
        self.source == BUILT_IN
    }
}

impl Layers {
    /// Reads all layers and checks every key and value.
    pub fn load(self) -> Result<Loaded, Error> {
        let Self { file, required, environment, flags } = self;
        let mut figment = Figment::from(NamedToml::new(BUILT_IN, DEFAULTS.to_owned()));
        let known = leaves(&figment.extract::<Dict>().map_err(|e| value_error(&e))?);
        match std::fs::read_to_string(&file) {
            Ok(text) => figment = add(figment, NamedToml::new(&format!("`{}`", file.display()), text), &known)?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => {}
            Err(e) => return Err(Error::File(file, e)),
        }
        if environment {
            figment = add(figment, environment_layer(), &known)?;
        }
        for (key, text) in flags {
            let Ok(value) = text.parse::<Value>();
            figment = add(figment, Flag(key, value), &known)?;
        }
        let config: Config = figment.extract().map_err(|e| value_error(&e))?;
        let entries = entries(&figment);
        Ok(Loaded { config, entries })
    }
}

/// `KRILIN_LOG__LEVEL` as `log.level`. Empty variables count as not set.
fn environment_layer() -> Env {
    Env::prefixed(PREFIX).filter(|key| !key.starts_with(NOT_KEYS)).split("__")
}

/// A TOML text with a name that a person recognises.
struct NamedToml {
    name: String,
    text: String,
}

impl NamedToml {
    fn new(name: &str, text: String) -> Self {
        Self { name: name.to_owned(), text }
    }
}

impl Provider for NamedToml {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name.clone())
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Toml::string(&self.text).data()
    }
}

/// Puts `layer` over `figment`, refusing keys that are not among `known`.
fn add(figment: Figment, layer: impl Provider, known: &[String]) -> Result<Figment, Error> {
    let source_name = name(&layer.metadata());
    let alone = Figment::from(&layer);
    let dict: Dict = alone.extract().map_err(|e| value_error(&e))?;
    for key in leaves(&dict) {
        if !known.contains(&key) {
            return Err(Error::UnknownKey { hint: hint(&key, known), source_name, key });
        }
    }
    Ok(figment.merge(layer))
}

/// The dotted keys of all values that are no tables.
fn leaves(dict: &Dict) -> Vec<String> {
    fn walk(dict: &Dict, path: &str, into: &mut Vec<String>) {
        for (key, value) in dict {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            match value {
                Value::Dict(_, inner) if !inner.is_empty() => walk(inner, &path, into),
                _ => into.push(path),
            }
        }
    }
    let mut keys = Vec::new();
    walk(dict, "", &mut keys);
    keys
}

/// The nearest thing to say about an unknown key.
fn hint(key: &str, known: &[String]) -> String {
    if known.iter().any(|k| k.starts_with(&format!("{key}."))) {
        return " but a table; give the keys in it".to_owned();
    }
    let last = key.rsplit('.').next().unwrap_or(key);
    if last.ends_with("url") || last.contains("password") || last.contains("secret") {
        return "; secrets are credentials, see `krilin config show`".to_owned();
    }
    let near = near::hint(key, known.iter().map(String::as_str));
    if near.is_empty() { "; `krilin config show` lists them all".to_owned() } else { near }
}

fn name(metadata: &Metadata) -> String {
    if metadata.name.starts_with("`KRILIN_`") {
        format!("the environment ({PREFIX}…)")
    } else {
        metadata.name.clone().into_owned()
    }
}

fn value_error(error: &figment::Error) -> Error {
    let source_name = error.metadata.as_ref().map_or_else(|| "the configuration".to_owned(), name);
    let key = if error.path.is_empty() { String::new() } else { format!("`{}`: ", error.path.join(".")) };
    Error::Value { source_name, key, message: error.kind.to_string() }
}

fn entries(figment: &Figment) -> Vec<Entry> {
    let keys = figment.extract::<Dict>().map(|dict| leaves(&dict)).unwrap_or_default();
    keys.into_iter()
        .map(|key| {
            let value = figment.extract_inner(&key).unwrap_or_default();
            let source = figment.find_metadata(&key).map_or_else(String::new, name);
            Entry { key, value, source }
        })
        .collect()
}
