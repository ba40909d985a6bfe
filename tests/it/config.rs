//! The configuration: the reference is complete, the layers are ordered, and an error names its source.

use std::{collections::BTreeSet, fs, path::PathBuf};

use krilin::config::{Config, DEFAULTS, Layers, credentials};

use crate::cluster::Directory;

fn layers() -> Layers {
    Layers { file: PathBuf::from("/nonexistent/krilin.toml"), environment: false, ..Layers::default() }
}

fn with_file(directory: &Directory, text: &str) -> Layers {
    let file = directory.0.join("krilin.toml");
    fs::write(&file, text).unwrap();
    Layers { file, ..layers() }
}

fn flag(key: &str, value: &str) -> Vec<(String, String)> {
    vec![(key.to_owned(), value.to_owned())]
}

/// The dotted keys of a JSON object.
fn keys(value: &serde_json::Value, path: &str, into: &mut BTreeSet<String>) {
    for (key, value) in value.as_object().unwrap() {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        if value.is_object() { keys(value, &path, into) } else { assert!(into.insert(path)) }
    }
}

#[test]
fn every_key_of_the_reference_is_a_field_and_every_field_a_key() {
    let loaded = layers().load().unwrap();
    let mut fields = BTreeSet::new();
    keys(&serde_json::to_value(&loaded.config).unwrap(), "", &mut fields);
    let reference: BTreeSet<String> = loaded.entries.iter().map(|entry| entry.key.clone()).collect();
    assert_eq!(fields, reference);
    assert!(loaded.entries.iter().all(|entry| entry.source == "the built-in defaults"));
}

#[test]
fn every_key_of_the_reference_has_a_sentence_above_it() {
    let lines: Vec<&str> = DEFAULTS.lines().collect();
    for pair in lines.windows(2) {
        if pair[1].contains(" = ") && !pair[1].starts_with('#') {
            assert!(pair[0].starts_with("# ") && pair[0].ends_with('.'), "`{}` has no sentence above it", pair[1]);
        }
    }
}

#[test]
fn a_flag_beats_the_file_and_each_value_knows_its_source() {
    let directory = Directory::new("layers");
    let mut layers = with_file(&directory, "[log]\nlevel = \"warn\"\nformat = \"json\"\n");
    layers.flags = flag("log.level", "debug");
    let loaded = layers.load().unwrap();
    assert_eq!(loaded.config.log.level, "debug");
    let source = |key: &str| loaded.entries.iter().find(|entry| entry.key == key).unwrap().source.clone();
    assert_eq!(source("log.level"), "the command line");
    assert_eq!(source("log.format"), format!("`{}`", directory.0.join("krilin.toml").display()));
    assert_eq!(source("http.listen"), "the built-in defaults");
}

#[test]
fn an_unknown_key_is_named_with_its_file_and_the_key_that_was_meant() {
    let directory = Directory::new("unknown");
    let error = with_file(&directory, "[http]\nlistne = \"127.0.0.1:1\"\n").load().unwrap_err().to_string();
    let file = directory.0.join("krilin.toml").display().to_string();
    assert_eq!(error, format!("`{file}`: `http.listne` is not a key (did you mean `http.listen`?)"));
}

#[test]
fn a_value_that_does_not_fit_is_named_with_its_source() {
    let mut layers = layers();
    layers.flags = flag("http.listen", "nowhere");
    let error = layers.load().unwrap_err().to_string();
    assert!(error.starts_with("the command line: `http.listen`: "), "{error}");
}

#[test]
fn a_file_that_is_no_toml_is_named_and_so_is_one_that_is_missing_but_asked_for() {
    let directory = Directory::new("broken");
    let layers = with_file(&directory, "[http\n");
    let file = layers.file.display().to_string();
    let error = layers.load().unwrap_err().to_string();
    assert!(error.contains(&file), "{error}");

    let mut missing = self::layers();
    missing.required = true;
    assert!(missing.load().unwrap_err().to_string().contains("/nonexistent/krilin.toml"));
}

#[test]
fn a_secret_among_the_keys_is_refused_and_not_repeated() {
    let mut layers = layers();
    layers.flags = flag("database_url", "postgres://krilin:hunter2@localhost/krilin");
    let error = layers.load().unwrap_err().to_string();
    assert!(error.contains("secrets are credentials"), "{error}");
    assert!(!error.contains("hunter2"), "{error}");
}

#[test]
fn a_credential_is_a_trimmed_file_of_the_strongest_directory() {
    let (strong, weak) = (Directory::new("strong"), Directory::new("weak"));
    let directories = [strong.0.clone(), weak.0.clone()];
    assert!(credentials::find("database_url", &directories).unwrap().is_none());
    fs::write(weak.0.join("database_url"), "weak\n").unwrap();
    assert_eq!(credentials::find("database_url", &directories).unwrap().unwrap().secret.expose(), "weak");
    fs::write(strong.0.join("database_url"), "strong\n").unwrap();
    let found = credentials::find("database_url", &directories).unwrap().unwrap();
    assert_eq!(found.secret.expose(), "strong");
    assert!(found.world_readable);
    assert!(!format!("{found:?}").contains("strong\""), "a credential does not print its secret");

    fs::write(strong.0.join("database_url"), "  \n").unwrap();
    assert!(credentials::find("database_url", &directories).unwrap_err().to_string().contains("empty"));
}

#[test]
fn the_state_directory_is_what_was_configured() {
    let mut layers = layers();
    layers.flags = flag("state_directory", "/srv/krilin");
    let config: Config = layers.load().unwrap().config;
    assert_eq!(config.state_directory(), PathBuf::from("/srv/krilin"));
}
