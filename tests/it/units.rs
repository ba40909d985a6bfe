//! The units of `systemd/`: systemd understands them, they are as closed as promised, and they start what there is.
//!
//! systemd-analyze is systemd's own judge; where it is not installed these tests say so and judge nothing.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    cli::{krilin, stdout},
    cluster::Directory,
};

/// The most that `systemd-analyze security` may find, of 10.
const EXPOSURE_MAX: f64 = 1.5;
/// Where the package puts the binary.
const BINARY: &str = "/usr/bin/krilin";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd")
}

/// The unit files, by name.
fn units() -> Vec<(String, String)> {
    let is_unit = |name: &str| ["target", "service", "socket", "slice"].iter().any(|kind| name.ends_with(kind));
    let mut units: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| is_unit(name))
        .map(|name| (name.clone(), fs::read_to_string(folder().join(name)).unwrap()))
        .collect();
    units.sort();
    assert!(units.len() >= 7, "{units:?}");
    units
}

/// A copy of the units that start the binary under test, and whether there is a judge.
fn copy(name: &str) -> Option<Directory> {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("SKIPPED: systemd-analyze is not installed (Debian's package systemd); the units were not judged");
        return None;
    }
    let directory = Directory::new(name);
    for (unit, text) in units() {
        fs::write(directory.0.join(unit), text.replace(BINARY, env!("CARGO_BIN_EXE_krilin"))).unwrap();
    }
    let (walls, copied) = (folder().join("krilin-.service.d"), directory.0.join("krilin-.service.d"));
    fs::create_dir(&copied).unwrap();
    for file in fs::read_dir(walls).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copied.join(file.file_name())).unwrap();
    }
    Some(directory)
}

/// What systemd-analyze says in `directory`, which it must do without a failure.
fn analyze(directory: &Path, arguments: &[&str]) -> String {
    // A home of its own: a judge that is root writes nothing into ours.
    let output = Command::new("systemd-analyze").args(arguments).current_dir(directory).output().unwrap();
    let words = format!("{}{}", stdout(&output), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {words}");
    words
}

#[test]
fn systemd_understands_every_unit() {
    let Some(directory) = copy("units-verify") else { return };
    for (unit, _) in units() {
        let said = analyze(&directory.0, &["verify", "--man=no", &unit]);
        assert_eq!(said.trim(), "", "{unit}");
    }
}

#[test]
fn every_service_is_closed() {
    let Some(directory) = copy("units-security") else { return };
    for (unit, _) in units().into_iter().filter(|(unit, _)| unit.ends_with(".service")) {
        // A template is judged by one of its instances.
        let judged = unit.replace("@.", "@1.");
        if judged != unit {
            fs::copy(directory.0.join(&unit), directory.0.join(&judged)).unwrap();
        }
        let said = analyze(&directory.0, &["security", "--offline=yes", "--no-pager", &judged]);
        let overall = said.lines().find(|line| line.contains("Overall exposure level")).unwrap();
        let level = overall.rsplit(": ").next().unwrap().split_whitespace().next().unwrap();
        let level: f64 = level.parse().unwrap_or_else(|_| panic!("{overall}"));
        assert!(level <= EXPOSURE_MAX, "{unit}: {said}");
    }
}

#[test]
fn every_unit_starts_a_verb_that_there_is() {
    let directory = Directory::new("units-verbs");
    let mut started = 0;
    for (unit, text) in units() {
        for line in text.lines().filter_map(|line| line.strip_prefix("ExecStart=")) {
            let verb = line.strip_prefix(BINARY).unwrap_or_else(|| panic!("{unit}: {line}"));
            let words = verb.split_whitespace().filter(|word| !word.starts_with('$'));
            let help = krilin(&directory.0).args(words).arg("--help").output().unwrap();
            assert!(help.status.success(), "{unit}: {line}");
            started += 1;
        }
    }
    assert!(started >= 3);
}

#[test]
fn no_secret_is_in_an_environment_and_every_line_has_its_reason() {
    let mut files = units();
    let walls = folder().join("krilin-.service.d/10-walls.conf");
    files.push(("10-walls.conf".to_owned(), fs::read_to_string(walls).unwrap()));
    for (name, text) in files {
        assert!(!text.lines().any(|line| line.starts_with("Environment=")), "{name}");
        assert!(text.starts_with("# "), "{name} begins with what it is for");
        if name.ends_with(".service") && !name.contains("migrate") {
            assert!(!text.contains("owner_database_url"), "{name}: only migrations are the owner's");
        }
        // A comment stands for the lines up to the next empty line, section or comment; these need none.
        let plain = ["Description=", "Documentation=", "ExecStart=", "WantedBy=", "["];
        let mut explained = false;
        for line in text.lines() {
            match line {
                "" => explained = false,
                line if line.starts_with('#') => explained = true,
                line if plain.iter().any(|known| line.starts_with(known)) => {}
                line => assert!(explained, "{name}: `{line}` has no reason"),
            }
        }
    }
}
