//! Manifests: the data tests of `tests/manifests` and what normalising promises.
//!
//! Adding a test is adding a file: `valid/NAME.{json,yaml}` must load; `invalid/NAME.{json,yaml}` must give exactly the
//! lines of `invalid/NAME.err`.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use krilin::model::manifest::{
    self, Cardinality, Format, Loaded, Manifest, OutputKind, Problem, ProblemCode, ScalarType,
};
use proptest::{collection::btree_map, option, prelude::*, sample::select};
use serde_json::{Value, json};

fn directory(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/manifests").join(name)
}

fn load_file(path: &Path) -> Result<Loaded, Vec<Problem>> {
    let format = if path.extension().is_some_and(|e| e == "json") { Format::Json } else { Format::Yaml };
    manifest::load(&fs::read_to_string(path).unwrap(), format)
}

/// The manifests of a directory, in order of their names.
fn manifests(name: &str) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(directory(name))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json" || e == "yaml"))
        .collect();
    paths.sort();
    paths
}

fn lines(problems: &[Problem]) -> String {
    let mut text = String::new();
    for p in problems {
        let _ = writeln!(text, "{} {} {} {}", p.pointer, p.code, p.line, p.message);
    }
    text
}

#[test]
fn every_valid_manifest_loads_and_its_long_form_loads_to_the_same() {
    for path in manifests("valid") {
        let loaded = load_file(&path).unwrap_or_else(|problems| panic!("{}:\n{}", path.display(), lines(&problems)));
        let text = serde_json::to_string_pretty(&loaded.manifest).unwrap();
        let again = manifest::load(&text, Format::Json)
            .unwrap_or_else(|problems| panic!("{} again:\n{}\n{text}", path.display(), lines(&problems)));
        assert_eq!(again.manifest, loaded.manifest, "{}", path.display());
    }
}

#[test]
fn every_broken_manifest_gives_exactly_the_expected_problems() {
    let mut differing = String::new();
    for path in manifests("invalid") {
        let found = match load_file(&path) {
            Ok(_) => String::new(),
            Err(problems) => lines(&problems),
        };
        let expected = fs::read_to_string(path.with_extension("err")).unwrap_or_default();
        if found.is_empty() || found != expected {
            let _ = write!(differing, "=== {}\n--- expected\n{expected}--- found\n{found}", path.display());
        }
    }
    assert!(differing.is_empty(), "\n{differing}");
}

#[test]
fn the_trackers_example_parses_without_change_and_is_written_out() {
    let loaded = load_file(&directory("valid").join("tracker-example.json")).unwrap();
    let manifest = loaded.manifest;
    assert_eq!(manifest.metadata.id.as_str(), "habit-tracker");
    assert_eq!(manifest.database.tables.len(), 1);
    let agent = manifest.agent_config.as_ref().unwrap();
    assert_eq!(agent.tools.iter().map(|t| (&*t.name, &*t.action)).next(), Some(("get_habits", "get_habits")));
    let calendar = &manifest.dependencies.optional_apps[0];
    assert_eq!((calendar.app_id.as_str(), calendar.version.to_string()), ("calendar", "*".to_owned()));
    let columns = &manifest.database.tables[0].columns;
    assert_eq!(columns.keys().collect::<Vec<_>>(), ["frequency", "name"], "the platform's id is no column of the app");
    assert!(columns["name"].kind == ScalarType::String && columns["name"].nullable);
    let OutputKind::Data(streaks) = &manifest.outputs[0].kind else { panic!("a data output") };
    assert_eq!(streaks.cardinality, Cardinality::Many);
    let record: &Value = &streaks.schema["items"];
    assert_eq!(record["properties"]["streak"], json!({"type": ["number", "null"]}));
    let notifications = manifest.permissions.notifications.unwrap();
    assert_eq!((notifications.max_per_day, notifications.channels), (20, vec!["in_app".to_owned()]));
    assert!(manifest.actions.is_empty(), "implicit actions need the bundle");
}

#[test]
fn a_yaml_twin_loads_to_the_same_manifest() {
    let twins: Vec<PathBuf> =
        manifests("valid").into_iter().filter(|path| path.with_extension("json").exists()).collect();
    let yaml: Vec<&PathBuf> = twins.iter().filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    assert!(!yaml.is_empty(), "there is at least one twin");
    for path in yaml {
        let json = load_file(&path.with_extension("json")).unwrap();
        assert_eq!(load_file(path).unwrap().manifest, json.manifest, "{}", path.display());
    }
}

#[test]
fn every_error_a_manifest_alone_can_have_is_among_the_broken_ones() {
    let found: BTreeSet<String> = manifests("invalid")
        .iter()
        .flat_map(|path| load_file(path).err().unwrap_or_default())
        .map(|problem| problem.code.to_string())
        .collect();
    let known: BTreeSet<String> = ProblemCode::ALL
        .iter()
        .filter(|code| !code.is_warning() && **code != ProblemCode::BadCode)
        .map(ToString::to_string)
        .collect();
    assert_eq!(found, known);
}

#[test]
fn what_the_author_wrote_also_fits_the_published_schema() {
    let schema: Value = serde_json::from_str(manifest::schema_text()).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    for path in manifests("valid").iter().filter(|path| path.extension().is_some_and(|e| e == "json")) {
        let value: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        let errors: Vec<String> = validator.iter_errors(&value).map(|e| format!("{} {e}", e.instance_path())).collect();
        assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
    }
}

/// Manifests made of every short form and its long one.
fn any_manifest() -> impl Strategy<Value = Value> {
    let scalar = || select(ScalarType::ALL).prop_map(ScalarType::as_str);
    let column = prop_oneof![
        scalar().prop_map(|kind| json!(kind)),
        (scalar(), any::<bool>()).prop_map(|(kind, nullable)| json!({"type": kind, "nullable": nullable})),
    ];
    let flat = || btree_map("[a-z]{2,5}", scalar(), 1..4).prop_map(|fields| json!(fields));
    let schema = || {
        prop_oneof![
            flat(),
            flat().prop_map(|items| json!({"type": "array", "items": items})),
            flat().prop_map(|inner| json!({"type": "object", "properties": {"inner": inner}})),
            Just(json!({"type": "number"})),
            Just(json!(true)),
        ]
    };
    let dependency = prop_oneof![
        Just(json!("calendar")),
        Just(json!("calendar@>=1.2, <2")),
        Just(json!({"app_id": "calendar", "uses": ["busy"]})),
    ];
    let switch = |long: Value| select(vec![json!(true), json!(false), long]);
    let permissions = (
        switch(json!({"max_per_day": 3})),
        switch(json!({})),
        switch(json!(["https://a.b/"])),
        switch(json!({"model": "deep"})),
    );
    let output = (schema(), option::of(select(vec!["one", "many"])));
    let table = (btree_map("[a-z]{2,5}", column, 1..5), any::<bool>(), select(vec!["90s", "48h", "7d", "60m"]));
    (table, output, (schema(), schema()), dependency, permissions).prop_map(|(table, output, action, dependency, on)| {
        let (mut columns, soft_delete, period) = table;
        columns.insert("name".to_owned(), json!("string"));
        columns.insert("id".to_owned(), json!("string"));
        let mut output_value = json!({"id": "totals", "type": "data", "schema": output.0, "update_frequency": period});
        if let Some(cardinality) = output.1 {
            output_value["cardinality"] = json!(cardinality);
        }
        json!({
            "metadata": {"id": "demo-app", "name": "Demo", "version": "1.0.0", "author": "Krilin Team"},
            "x-own": {"kept": soft_delete},
            "dependencies": {"optional_apps": [dependency], "optional_integrations": ["strava"]},
            "outputs": [output_value],
            "permissions": {"notifications": on.0, "files": on.1, "api_access": on.2, "ai": on.3, "data_scopes": ["write:own_data"]},
            "actions": [{"id": "tidy", "timeout": period, "input_schema": action.0, "output_schema": action.1}],
            "agent_config": {"system_prompt": "You help.", "tools": ["tidy", {"name": "sort"}]},
            "ui_components": {"settings": [{"key": "unit", "type": "select", "label": "Unit", "options": ["km", {"value": 2, "label": "mi"}]}]},
            "database": {"tables": [{"name": "things", "schema": columns, "soft_delete": soft_delete, "indexes": ["name"]}]},
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn normalising_twice_is_normalising_once(value in any_manifest()) {
        let text = value.to_string();
        let once = manifest::load(&text, Format::Json).map_err(|problems| TestCaseError::fail(lines(&problems)))?.manifest;
        let long = serde_json::to_value(&once).unwrap();
        let twice = manifest::load(&long.to_string(), Format::Json).map_err(|problems| TestCaseError::fail(lines(&problems)))?.manifest;
        prop_assert_eq!(&twice, &once);
        prop_assert_eq!(serde_json::from_value::<Manifest>(long).unwrap(), once);
    }

    #[test]
    fn no_text_makes_the_loader_panic(seed in 0_usize..4000, cut in 0_usize..40, noise in "[\\[\\]{}:,\"\\-&*!|> a1\n]{0,6}") {
        for name in ["tracker-example.json", "tracker-example.yaml"] {
            let mut chars: Vec<char> = fs::read_to_string(directory("valid").join(name)).unwrap().chars().collect();
            let from = seed % chars.len();
            let to = (from + cut).min(chars.len());
            chars.splice(from..to, noise.chars());
            let text: String = chars.into_iter().collect();
            for format in [Format::Json, Format::Yaml] {
                if let Err(problems) = manifest::load(&text, format) {
                    prop_assert!(!problems.is_empty() && problems.iter().all(|p| p.line > 0));
                }
            }
        }
    }
}

#[test]
fn a_text_over_the_limit_or_nested_too_deeply_is_refused_at_once() {
    let long = format!("{{\"x-pad\": \"{}\"}}", "a".repeat(manifest::MANIFEST_MAX_BYTES));
    let deep_json = "[".repeat(100_000);
    let deep_yaml = "- ".repeat(1_000) + "a";
    for (text, format) in [
        (long, Format::Json),
        (deep_json, Format::Json),
        (deep_yaml, Format::Yaml),
        ("[".repeat(100_000), Format::Yaml),
    ] {
        let problems = manifest::load(&text, format).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].code, ProblemCode::Syntax);
    }
}

#[test]
fn a_manifest_full_of_mistakes_is_refused_in_no_time_with_a_bounded_answer() {
    let names: Vec<String> = (0..8_000).map(|i| format!("a{i}")).collect();
    let tables: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
    for broken in [
        json!({"permissions": {"data_scopes": names}}),
        json!({"database": {"tables": tables}}),
        json!({"hooks": names.iter().map(|name| (name.clone(), json!(1))).collect::<serde_json::Map<_, _>>()}),
        json!({"dependencies": {"optional_apps": names}}),
    ] {
        let started = Instant::now();
        let problems = manifest::load(&broken.to_string(), Format::Json).unwrap_err();
        assert!(problems.len() <= manifest::PROBLEMS_MAX);
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }
}

#[test]
fn exported_functions_stand_in_for_undeclared_tools_and_must_be_there() {
    let loaded = load_file(&directory("valid").join("tracker-example.json")).unwrap();
    let mut manifest = loaded.manifest.clone();
    let exports = ["get_habits", "log_habit", "calculate_streaks", "output_daily_streaks"].map(str::to_owned);
    let problems = loaded.positions.locate(manifest::check_exports(&manifest, &exports));
    let codes: Vec<(&str, u32)> = problems.iter().map(|p| (p.code.as_str(), p.line)).collect();
    assert_eq!(codes, [("W101", 26), ("W101", 26), ("E104", 26)]);
    assert!(problems[2].message.contains("did you mean `calculate_streaks`?"), "{}", problems[2].message);
    manifest.add_implicit_actions(&exports);
    let ids: Vec<&str> = manifest.actions.iter().map(|action| action.id.as_str()).collect();
    assert_eq!(ids, ["get_habits", "log_habit"], "what is not exported is no action");
    let without = manifest::check_exports(&loaded.manifest, &[]);
    assert!(without.iter().any(|p| p.pointer == "/outputs/0" && p.code == ProblemCode::UnknownAction));
}

#[test]
fn apps_that_require_each_other_are_found_and_an_optional_edge_is_no_cycle() {
    let app = |id: &str, required: &[&str], optional: &[&str]| {
        let text = json!({
            "metadata": {"id": id, "name": id, "version": "1.0.0", "author": "Krilin Team"},
            "dependencies": {"required_apps": required, "optional_apps": optional}
        });
        manifest::load(&text.to_string(), Format::Json).unwrap().manifest
    };
    let (one, two, three) = (app("one", &["two"], &[]), app("two", &["three"], &[]), app("three", &["one"], &[]));
    let problems = manifest::dependency_cycles(&one, &[&two, &three]);
    assert_eq!(problems.len(), 1);
    assert_eq!(
        (problems[0].code, problems[0].pointer.as_str()),
        (ProblemCode::DependencyCycle, "/dependencies/required_apps/0")
    );
    assert!(problems[0].message.ends_with("one → two → three → one"), "{}", problems[0].message);
    let three = app("three", &[], &["one"]);
    assert_eq!(manifest::dependency_cycles(&one, &[&two, &three]), []);
}
