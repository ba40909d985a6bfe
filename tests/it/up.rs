//! `krilin up` as a real process: it makes its Postgres, guards its directory, survives the death of either, and leaves
//! nothing behind that it should not.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use krilin::cluster;
use serde_json::Value;

use crate::{
    cli::{krilin, run, stderr, stdout},
    cluster::Directory,
};

/// The longest to wait for anything here; a loaded machine makes a cluster in a few seconds.
const PATIENCE: Duration = Duration::from_mins(1);

/// A running `krilin up`, ended with this value.
struct Up {
    process: Child,
    url: String,
}

impl Up {
    /// Starts one and waits until it listens.
    fn start(directory: &Path) -> Self {
        let mut process = krilin(directory)
            .args(["up", "--listen", "127.0.0.1:0", "--json"])
            .stdout(Stdio::piped())
            .stderr(fs::File::create(directory.join("up.log")).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| {
            panic!("`{line}`, and its log: {}", fs::read_to_string(directory.join("up.log")).unwrap())
        });
        Self { url: answer["url"].as_str().unwrap().to_owned(), process }
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.process), signal).unwrap();
    }

    /// Asks it to stop as systemd does, and waits for the end.
    fn stop(&mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        self.process.wait().unwrap()
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn postgres(directory: &Path) -> PathBuf {
    directory.join("state/postgres")
}

fn postmaster(directory: &Path) -> i32 {
    let text = fs::read_to_string(postgres(directory).join("data/postmaster.pid")).unwrap();
    text.lines().next().unwrap().parse().unwrap()
}

async fn status(url: &str, path: &str) -> Option<u16> {
    reqwest::get(format!("{url}{path}")).await.ok().map(|answer| answer.status().as_u16())
}

/// Waits until `path` answers with `expected`.
async fn answers(url: &str, path: &str, expected: u16) {
    let begun = Instant::now();
    while status(url, path).await != Some(expected) {
        assert!(begun.elapsed() < PATIENCE, "{path} does not answer {expected}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn up_serves_keeps_its_data_and_stops_with_its_postgres() {
    let directory = Directory::new("up");
    let mut up = Up::start(&directory.0);
    answers(&up.url, "/readyz", 200).await;
    let added = run(&directory.0, &["user", "add", "--name", "Ada", "--timezone", "Europe/Berlin"]);
    assert!(added.status.success(), "{}", stderr(&added));

    let second = run(&directory.0, &["up", "--listen", "127.0.0.1:0"]);
    assert_eq!(second.status.code(), Some(1));
    let words = stderr(&second);
    assert!(words.contains(&format!("(process {})", up.process.id())), "{words}");
    answers(&up.url, "/readyz", 200).await;

    assert!(up.stop().success());
    assert!(!cluster::is_running(&postgres(&directory.0)));
    assert_eq!(status(&up.url, "/healthz").await, None);
    let away = run(&directory.0, &["user", "list"]);
    assert!(stderr(&away).contains("`krilin up` starts it"), "{}", stderr(&away));

    let mut up = Up::start(&directory.0);
    let listed = run(&directory.0, &["user", "list"]);
    assert!(stdout(&listed).contains("Ada"), "{}", stderr(&listed));
    assert!(up.stop().success());
}

#[tokio::test]
async fn a_killed_up_is_followed_by_one_that_takes_over() {
    let directory = Directory::new("killed");
    let mut up = Up::start(&directory.0);
    up.signal(rustix::process::Signal::KILL);
    up.process.wait().unwrap();
    assert!(cluster::is_running(&postgres(&directory.0)), "nobody was left to stop it");
    let left_behind = postmaster(&directory.0);

    let mut up = Up::start(&directory.0);
    assert_ne!(postmaster(&directory.0), left_behind);
    answers(&up.url, "/readyz", 200).await;
    assert!(up.stop().success());
    assert!(!cluster::is_running(&postgres(&directory.0)));
}

#[tokio::test]
async fn a_postgres_that_dies_comes_back_by_itself() {
    let directory = Directory::new("dies");
    let mut up = Up::start(&directory.0);
    answers(&up.url, "/readyz", 200).await;
    let died = postmaster(&directory.0);
    rustix::process::kill_process(rustix::process::Pid::from_raw(died).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    let begun = Instant::now();
    while !cluster::is_running(&postgres(&directory.0)) || postmaster(&directory.0) == died {
        assert!(begun.elapsed() < PATIENCE, "Postgres does not come back");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    answers(&up.url, "/readyz", 200).await;
    assert!(up.stop().success());
}

#[tokio::test]
async fn the_doctor_finds_nothing_in_a_healthy_house_and_names_a_planted_fault() {
    let directory = Directory::new("doctor");
    let mut up = Up::start(&directory.0);
    let healthy = run(&directory.0, &["doctor"]);
    assert!(healthy.status.success(), "{}", stdout(&healthy));

    let root = postgres(&directory.0);
    let owner = krilin::model::secret::Secret::new(cluster::url(&root, "krilin_owner", cluster::DATABASE));
    let mut owner = krilin::store::connect(&owner, "test").await.unwrap();
    sqlx::raw_sql(
        "insert into krilin.apps (id, name, current_version) values ('open', 'Open', '1.0.0'); \
         insert into krilin.app_tables (app_id, table_name, physical_name, schema) values ('open', 't', 'app_open_t', '{}'); \
         create table krilin.app_open_t (id int); alter table krilin.app_open_t enable row level security",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    let sick = run(&directory.0, &["doctor", "--json"]);
    assert_eq!(sick.status.code(), Some(1));
    let report: Value = serde_json::from_str(&stdout(&sick)).unwrap();
    let failed: Vec<&Value> =
        report["checks"].as_array().unwrap().iter().filter(|check| check["state"] == "fail").collect();
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert!(failed[0]["finding"].as_str().unwrap().contains("app_open_t"), "{failed:?}");
    assert!(failed[0]["remedy"].is_string());
    assert!(up.stop().success());
}
