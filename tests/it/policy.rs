//! Policies: the files, the code and the reference say the same.

use std::{collections::BTreeSet, fs, path::Path, sync::Arc};

use krilin::{
    jobs::{self, retention::Retention},
    model::policy::{Policies, Policy, PolicyError},
    queue::registry::{Handler, Registry, RegistryError},
};

fn names_in(directory: &str, extension: &str) -> BTreeSet<String> {
    let paths = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(directory)).unwrap();
    let paths = paths.map(|entry| entry.unwrap().path());
    let named = paths.filter(|path| path.extension().is_some_and(|found| found == extension));
    named.map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect()
}

#[test]
fn every_policy_file_is_a_kind_and_has_its_code() {
    let policies = jobs::policies(None).unwrap();
    let kinds: BTreeSet<_> = policies.iter().map(|(kind, _)| kind.to_owned()).collect();
    assert_eq!(names_in("jobs", "toml"), kinds);
    let mut files = names_in("src/jobs", "rs");
    files.remove("mod");
    assert_eq!(files, kinds);
}

#[test]
fn a_registry_wants_both_halves_of_each_kind() {
    let policies = jobs::policies(None).unwrap();
    let handlers = || [("retention", Arc::new(Retention) as Arc<dyn Handler>)];
    let missing = Registry::new(&policies, handlers());
    assert_eq!(missing.unwrap_err(), RegistryError::NoHandler("app_action".to_owned()));
    let stray = Registry::new(&Policies::default(), handlers());
    assert!(matches!(stray, Err(RegistryError::NoPolicy(_))));
}

#[test]
fn the_reference_names_exactly_the_fields_there_are() {
    let (_, policy) = jobs::POLICIES[0];
    let value = serde_json::to_value(Policy::parse("some_kind", policy, &[]).unwrap()).unwrap();
    let mut fields = BTreeSet::new();
    for (name, value) in value.as_object().unwrap() {
        match value.as_object() {
            _ if name == "errors" => _ = fields.insert("errors.CODE".to_owned()),
            Some(inner) => fields.extend(inner.keys().map(|inner| format!("{name}.{inner}"))),
            None => _ = fields.insert(name.clone()),
        }
    }
    let reference = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/README.md")).unwrap();
    let (reference, _) = reference.split_once("\n## ").unwrap();
    let rows = reference.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    assert_eq!(rows.map(|(name, _)| name.to_owned()).collect::<BTreeSet<_>>(), fields);
}

#[test]
fn an_overlay_changes_single_fields_and_mistakes_are_named() {
    let (kind, text) = jobs::POLICIES[0];
    let policy = Policy::parse(kind, text, &["max_attempts = 9\n[backoff]\nfirst = \"2s\""]).unwrap();
    let built_in = Policy::parse(kind, text, &[]).unwrap();
    assert_eq!((policy.max_attempts, policy.backoff.first.to_string().as_str()), (9, "2s"));
    assert_eq!((policy.timeout, policy.backoff.longest), (built_in.timeout, built_in.backoff.longest));
    for (overlay, word) in [
        ("colour = 1", "colour"),
        ("timeout = \"soon\"", "soon"),
        ("max_attempts = 0", "max_attempts"),
        ("[backoff]\njitter = 2.0", "backoff.jitter"),
        ("queue = \"No Name\"", "queue"),
        ("[errors]\nNoSuchCode = \"retry\"", "NoSuchCode"),
        ("[errors]\nTimeout = \"never\"", "never"),
        ("[errors]\nTimeout = { snooze = \"25h\" }", "errors"),
        ("grace = \"6m\"", "grace"),
        ("deadline = \"0s\"", "deadline"),
        ("max_snoozes = 10001", "max_snoozes"),
    ] {
        let error: PolicyError = Policy::parse(kind, text, &[overlay]).unwrap_err();
        assert!(error.to_string().contains(word), "{error}");
    }
}
