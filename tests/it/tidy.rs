//! The house rules, executable. Each test names the rule and, when it fails, the places that break it.
//!
//! An exception is a line here with its reason, never a silence in the code.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// The longest a source file may be, in lines: past it, it is two nouns.
const FILE_MAX_LINES: usize = 400;
/// The most packages `Cargo.lock` may name: builds stay possible on two cores.
const LOCK_MAX_PACKAGES: usize = 450;

/// The layers, lowest first. A module may import from lower layers.
const LAYERS: &[&[&str]] = &[
    &["model"],
    &["clock", "config", "http", "supervisor", "telemetry"],
    &["cluster", "store"],
    &["apps", "queue", "sandbox", "schedule"],
    &["ctx"],
    &["jobs"],
    &["web"],
    &["cli"],
];

/// What a layer may not import although it lies lower: the web layer enqueues work and never runs it.
const MUST_NOT: &[(&str, &str)] = &[("web", "jobs"), ("queue", "apps"), ("queue", "web"), ("sandbox", "store")];

/// Texts that may stand in one place only: (text, where it may stand, why).
const ONLY_IN: &[(&str, &[&str], &str)] = &[
    ("sqlx::query", &["src/store/"], "all SQL is in store"),
    ("sqlx::raw_sql", &["src/store/"], "all SQL is in store"),
    ("env::var(", &["src/config/"], "the environment is read in config"),
    (
        "env::vars",
        &["src/config/", "src/sandbox/lockdown.rs"],
        "the environment is read in config; a child looks that it has none",
    ),
    ("Utc::now()", &["src/clock.rs"], "time comes in through the clock"),
    ("reqwest::", &["src/http.rs"], "the network is asked through one door"),
];

struct Source {
    path: String,
    text: String,
}

impl Source {
    /// The first path segment below `src`: the module.
    fn module(&self) -> &str {
        self.path["src/".len()..].split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// The code before the unit tests at the bottom, without comments.
    fn code(&self) -> String {
        let before_tests = self.text.split("\n#[cfg(test)]\n").next().unwrap();
        before_tests.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn files_below(folder: &str, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn sources(folder: &str) -> Vec<Source> {
    let read = |path: PathBuf| Source {
        text: fs::read_to_string(&path).unwrap(),
        path: path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned(),
    };
    files_below(folder, ".rs").into_iter().map(read).collect()
}

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn none(rule: &str, breaches: &[String]) {
    assert!(breaches.is_empty(), "{rule}:\n  {}", breaches.join("\n  "));
}

#[test]
fn imports_go_down() {
    let mut breaches = Vec::new();
    for source in sources("src") {
        let module = source.module();
        let Some(own) = layer_of(module) else { continue };
        for imported in crate_imports(&source.code()) {
            let allowed = imported == module
                || layer_of(&imported).is_some_and(|layer| layer < own)
                    && !MUST_NOT.contains(&(module, imported.as_str()));
            if !allowed {
                breaches.push(format!("{} imports {imported}", source.path));
            }
        }
    }
    none("imports go down the layers of src/README.md", &breaches);
}

/// The modules that stand behind `crate::` in `code`, groups included (`use crate::{a::B, c::D}`).
fn crate_imports(code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let word = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0_usize;
            let mut start = true;
            for (i, c) in group.char_indices() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => start = true,
                    c if c.is_whitespace() => {}
                    _ if start => {
                        found.insert(word(&group[i..]));
                        start = false;
                    }
                    _ => {}
                }
            }
        } else {
            found.insert(word(rest));
        }
    }
    found.retain(|name| !name.is_empty());
    found
}

#[test]
fn every_module_has_a_layer() {
    let unknown: BTreeSet<String> = sources("src")
        .iter()
        .map(|source| source.module().to_owned())
        .filter(|module| !matches!(module.as_str(), "lib" | "main") && layer_of(module).is_none())
        .collect();
    none("a module without a layer", &unknown.into_iter().collect::<Vec<_>>());
}

#[test]
fn a_text_with_one_home_stands_nowhere_else() {
    let mut breaches = Vec::new();
    for source in sources("src") {
        for (text, homes, why) in ONLY_IN {
            if source.code().contains(text) && !homes.iter().any(|home| source.path.starts_with(home)) {
                breaches.push(format!("{}: `{text}` ({why})", source.path));
            }
        }
    }
    none("a text away from its home", &breaches);
}

#[test]
fn model_awaits_nothing() {
    let breaches: Vec<String> = sources("src/model")
        .iter()
        .filter(|source| source.code().contains(".await") || source.code().contains("async fn"))
        .map(|source| source.path.clone())
        .collect();
    none("the model is pure", &breaches);
}

#[test]
fn a_file_is_one_noun_or_one_verb() {
    let mut breaches = Vec::new();
    for source in sources("src").iter().chain(&sources("tests")) {
        let lines = source.text.lines().count();
        if lines > FILE_MAX_LINES {
            breaches.push(format!("{}: {lines} lines", source.path));
        }
    }
    none("files of more than 400 lines", &breaches);
}

#[test]
fn every_source_says_what_it_is() {
    let breaches: Vec<String> = sources("src")
        .iter()
        .chain(&sources("tests"))
        .filter(|source| !source.text.starts_with("//!"))
        .map(|source| source.path.clone())
        .collect();
    none("a source file begins with `//!`", &breaches);
}

#[test]
fn no_file_has_a_name_that_says_nothing() {
    const SAY_NOTHING: &[&str] =
        &["manager", "service", "helper", "helpers", "util", "utils", "common", "data", "info", "processor", "task"];
    let breaches: Vec<String> = files_below("src", ".rs")
        .iter()
        .filter(|path| SAY_NOTHING.contains(&path.file_stem().unwrap().to_str().unwrap()))
        .map(|path| path.display().to_string())
        .collect();
    none("a name that says nothing", &breaches);
}

#[test]
fn nothing_is_left_unfinished() {
    let mut breaches = Vec::new();
    let marks =
        ["to".to_owned() + "do!(", "unimplem".to_owned() + "ented!(", "TO".to_owned() + "DO", "FIX".to_owned() + "ME"];
    for source in sources("src").iter().chain(&sources("tests")) {
        for (number, line) in source.text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                breaches.push(format!("{}:{}", source.path, number + 1));
            }
        }
    }
    none("unfinished marks", &breaches);
}

#[test]
fn unsafe_code_is_in_the_one_file_that_says_why() {
    let found: Vec<String> = sources("src")
        .into_iter()
        .filter(|source| source.text.contains("expect(unsafe_code"))
        .map(|source| source.path)
        .collect();
    assert_eq!(found, ["src/sandbox/arena.rs"]);
}

#[test]
fn the_lock_stays_light() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let packages = lock.matches("[[package]]").count();
    assert!(packages <= LOCK_MAX_PACKAGES, "Cargo.lock names {packages} packages, more than {LOCK_MAX_PACKAGES}");
    for banned in ["openssl-sys", "native-tls", "aws-lc-sys", "wasmtime", "v8"] {
        assert!(!lock.contains(&format!("name = \"{banned}\"")), "{banned} is in Cargo.lock");
    }
}

#[test]
fn every_top_level_folder_has_a_readme() {
    let breaches: Vec<String> = ["src", "apps", "jobs", "migrations", "config", "systemd", "tests"]
        .iter()
        .filter(|folder| !root().join(folder).join("README.md").is_file())
        .map(|folder| format!("{folder}/README.md"))
        .collect();
    none("missing", &breaches);
}

#[test]
fn the_map_names_every_module_and_no_ghost() {
    let map = fs::read_to_string(root().join("src/README.md")).unwrap();
    let mut breaches = Vec::new();
    for path in files_below("src", ".rs") {
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap();
        let module = path["src/".len()..].split('/').next().unwrap();
        let is_file = Path::new(module).extension().is_some();
        let named = if is_file { format!("`{module}`") } else { format!("`{module}/`") };
        if !map.contains(&named) {
            breaches.push(format!("{path}: the map does not name {named}"));
        }
    }
    for token in map.split('`').skip(1).step_by(2) {
        let is_path = token.contains('/') && !token.contains([' ', '{', '<', '*', ':', '(']) && !token.starts_with('/');
        if is_path && !root().join("src").join(token).exists() && !root().join(token).exists() {
            breaches.push(format!("the map names `{token}`, which is not there"));
        }
    }
    breaches.sort();
    breaches.dedup();
    none("src/README.md and the tree differ", &breaches);
}

#[test]
fn every_markdown_page_has_one_title() {
    let mut breaches = Vec::new();
    let pages = ["src", "apps", "jobs", "migrations", "config", "systemd", "tests"]
        .iter()
        .flat_map(|folder| files_below(folder, ".md"))
        .chain(["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(|page| root().join(page)));
    for page in pages {
        let text = fs::read_to_string(&page).unwrap();
        let outside_code = text.split("```").step_by(2).collect::<String>();
        let titles = outside_code.lines().filter(|line| line.starts_with("# ")).count();
        if titles != 1 {
            breaches.push(format!("{}: {titles} titles", page.display()));
        }
    }
    none("one H1 in each page", &breaches);
}

#[test]
fn every_test_that_the_page_of_tests_names_is_there() {
    let page = fs::read_to_string(root().join("tests/README.md")).unwrap();
    let named = page.split('`').skip(1).step_by(2).filter_map(|token| token.split_once("::"));
    let mut breaches = Vec::new();
    for (file, test) in named.filter(|(file, _)| *file != "World") {
        let text = fs::read_to_string(root().join(format!("tests/it/{file}.rs"))).unwrap_or_default();
        if !text.contains(&format!("fn {test}(")) {
            breaches.push(format!("{file}::{test}"));
        }
    }
    none("tests/README.md names tests that are not there", &breaches);
}
