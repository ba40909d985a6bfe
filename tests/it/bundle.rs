//! Apps as directories: `krilin app check`, `krilin app types`, and the apps in the binary.

use std::{fs, path::Path};

use krilin::{
    apps::{
        bundle::{self, CODE_MAX_BYTES},
        types::typescript,
    },
    model::manifest::{self, Format},
    sandbox::SOURCE_BYTES,
};
use serde_json::{Value, json};

use crate::{
    cli::{run, stderr, stdout},
    cluster::Directory,
};

fn root(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path).display().to_string()
}

/// A directory with these files.
fn app(name: &str, files: &[(&str, &str)]) -> Directory {
    let directory = Directory::new(name);
    for (file, text) in files {
        fs::write(directory.0.join(file), text).unwrap();
    }
    directory
}

fn demo(more: &Value) -> String {
    let mut manifest =
        json!({"metadata": {"id": "demo-app", "name": "Demo", "version": "1.0.0", "author": "Krilin Team"}});
    for (key, value) in more.as_object().unwrap() {
        manifest[key] = value.clone();
    }
    manifest.to_string()
}

#[test]
fn every_app_here_passes_its_check_and_the_binary_holds_it_as_it_is() {
    let directory = Directory::new("apps");
    for entry in fs::read_dir(root("apps")).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir()) {
        let output = run(&directory.0, &["app", "check", &entry.path().display().to_string()]);
        assert!(output.status.success(), "{}{}", stdout(&output), stderr(&output));
        let read = bundle::read_dir(&entry.path()).unwrap();
        assert_eq!(read.manifest.metadata.id.as_str(), entry.file_name().to_str().unwrap());
        let embedded = bundle::embedded(read.manifest.metadata.id.as_str()).unwrap().unwrap();
        assert_eq!((embedded.manifest, embedded.code.hash, embedded.test), (read.manifest, read.code.hash, read.test));
    }
    assert_eq!(bundle::embedded_ids().collect::<Vec<_>>(), ["habit-tracker"]);
    assert!(bundle::embedded("nobody-wrote-this").unwrap().is_none());
}

#[test]
fn a_check_names_file_line_and_code_and_ends_with_one() {
    let directory = Directory::new("check");
    let broken = root("tests/manifests/invalid/ten-mistakes.json");
    let output = run(&directory.0, &["app", "check", &broken]);
    assert_eq!(output.status.code(), Some(1));
    let text = stdout(&output);
    assert_eq!(text.lines().count(), 11, "{text}");
    let missing = format!("{broken}:2:15 error[E002] /metadata: `metadata` needs `author`");
    assert!(text.starts_with(&missing), "{text}");
    assert_eq!(text.lines().last(), Some("10 errors, no warnings"));

    let report: Value =
        serde_json::from_str(&stdout(&run(&directory.0, &["app", "check", &broken, "--json"]))).unwrap();
    assert_eq!((report["errors"].as_u64(), report["findings"].as_array().map(Vec::len)), (Some(10), Some(10)));
    assert_eq!(report["findings"][0]["code"], "E002");
    assert_eq!(report["app_id"], Value::Null);

    let absent = run(&directory.0, &["app", "check", "nothing-here.json"]);
    assert_eq!(absent.status.code(), Some(1));
    assert!(stderr(&absent).contains("nothing-here.json"), "{}", stderr(&absent));
}

#[test]
fn a_directory_is_checked_with_the_functions_that_its_code_exports() {
    let manifest = demo(
        &json!({"actions": [{"id": "tidy"}, {"id": "sort", "handler": "sort_all"}], "hooks": {"on_install": "tidy"}}),
    );
    let good = "export async function tidy() {}\nexport const sort_all = () => 1;\n";
    for (name, code, code_of_problem, place) in [
        ("good", good, None, ""),
        ("lacks", "export function tidy() {}\nexport const sort_all = 7;\n", Some("E104"), "/actions/1/handler"),
        ("syntax", "export function tidy() {}\nexport function (\n", Some("E201"), ""),
        ("throws", "export function tidy() {}\nthrow new Error('at once');\n", Some("E201"), ""),
    ] {
        let directory = app(name, &[("manifest.json", &manifest), ("app.js", code)]);
        let output = run(&directory.0, &["app", "check", ".", "--json"]);
        let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
        let first = &report["findings"][0];
        assert_eq!(first["code"].as_str(), code_of_problem, "{name}: {report}");
        assert_eq!(first["pointer"].as_str().unwrap_or_default(), place, "{name}: {report}");
        assert_eq!(output.status.success(), code_of_problem.is_none(), "{name}");
        if code_of_problem == Some("E201") {
            assert_eq!((first["file"].as_str(), first["line"].as_u64()), (Some("./app.js"), Some(2)), "{report}");
        }
    }
}

#[test]
fn a_directory_without_code_with_two_manifests_or_with_too_much_is_refused_by_name() {
    let manifest = demo(&json!({}));
    let too_long = " ".repeat(CODE_MAX_BYTES + 1);
    for (name, files, words) in [
        ("nothing", vec![], "no manifest"),
        ("two", vec![("manifest.json", manifest.as_str()), ("manifest.yaml", "a: b")], "more than one manifest"),
        ("no-code", vec![("manifest.json", manifest.as_str())], "app.js"),
        ("long", vec![("manifest.json", manifest.as_str()), ("app.js", too_long.as_str())], "over 1048576 bytes"),
    ] {
        let directory = app(name, &files);
        let error = bundle::read_dir(&directory.0).unwrap_err().to_string();
        assert!(error.contains(words), "{name}: {error}");
        let output = run(&directory.0, &["app", "check", "."]);
        assert_eq!(output.status.code(), Some(1), "{name}");
        assert!(format!("{}{}", stdout(&output), stderr(&output)).contains(words), "{name}");
    }
    assert_eq!(CODE_MAX_BYTES, SOURCE_BYTES, "what can be read can be run");
}

#[test]
fn types_say_what_the_manifest_says() {
    let manifest = demo(&json!({
        "database": {"tables": [{"name": "things", "schema": {
            "name": {"type": "string", "nullable": false, "description": "What */ it is"},
            "size": "number", "kind": {"type": "string", "enum": ["a", "b\"c"]}, "day": "date", "tags": "string[]"
        }}]},
        "ui_components": {"settings": [
            {"key": "unit", "type": "select", "label": "Unit", "options": ["km", "mi"], "default": "km"},
            {"key": "at", "type": "time", "label": "At"}
        ]},
        "actions": [
            {"id": "sort", "input_schema": {"by": "string", "ids": "integer[]"}, "output_schema": {"done": "boolean"}},
            {"id": "tidy", "input_schema": {"type": "object", "properties": {"deep": {"type": "boolean", "default": false}, "odd-name": {}}}}
        ]
    }));
    let loaded = manifest::load(&manifest, Format::Json).unwrap();
    insta::assert_snapshot!(typescript(&loaded.manifest), @r###"
    // Types of demo-app 1.0.0, written by `krilin app types` from its manifest. Change the manifest, then write them again.
    /// <reference path="../krilin.d.ts" />

    /** The rows of each table. */
    type Tables = {
      things: krilin.Row & {
        day: krilin.IsoDate | null;
        kind: "a" | "b\"c" | null;
        /** What *\/ it is */
        name: string;
        size: number | null;
        tags: string[] | null;
      };
    };

    /** What the user has set: `ctx.settings`. */
    type Settings = {
      /** Unit */
      unit: "km" | "mi";
      /** At */
      at: krilin.IsoTime | null;
    };

    /** What each action is given and gives back. */
    type Actions = {
      sort: { input: { by: string; ids: number[] }; output: { done: boolean | null } };
      tidy: { input: { deep: boolean; "odd-name"?: krilin.Json }; output: krilin.Json };
    };
    "###);
    let directory = app("types", &[("manifest.json", &manifest)]);
    assert!(run(&directory.0, &["app", "types", "."]).status.success());
    assert_eq!(fs::read_to_string(directory.0.join("krilin.gen.d.ts")).unwrap(), typescript(&loaded.manifest));
    let printed = run(&directory.0, &["app", "types", ".", "--stdout"]);
    assert_eq!(stdout(&printed), typescript(&loaded.manifest));
}

#[test]
fn the_schema_is_published_as_it_is_used() {
    let directory = Directory::new("schema");
    let printed: Value = serde_json::from_str(&stdout(&run(&directory.0, &["app", "schema"]))).unwrap();
    assert_eq!(printed["$id"], "https://krilin.local/schemas/manifest-1.schema.json");
}
