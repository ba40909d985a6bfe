//! A Krilin as an operator runs it, for a bench: a durable throwaway Postgres, and `krilin serve` and `krilin work` as
//! processes of their own.

use std::{
    fs,
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use krilin::{
    cluster::{Cluster, DATABASE},
    store::{self, schema},
};
use serde_json::Value;
use sqlx::{Connection, PgConnection, PgPool};

use crate::wal;

/// The binary under test, built in the bench's own profile.
const KRILIN: &str = env!("CARGO_BIN_EXE_krilin");
/// How long a process may take to be ready.
const READY: Duration = Duration::from_secs(30);

/// One user with the habit tracker installed.
pub struct User {
    /// A bearer token with every scope a program needs.
    pub token: String,
}

/// The whole of it. Dropping it ends the processes and removes the cluster.
pub struct Fleet {
    /// The cluster, for a bench that stops and starts it.
    pub cluster: Cluster,
    /// As the superuser, in Krilin's database: what counts the rows afterwards.
    pub pool: PgPool,
    /// Where the server listens: `http://127.0.0.1:PORT`.
    pub base: String,
    credentials: PathBuf,
    server: Child,
    /// The workers, in the order of their start.
    pub workers: Vec<Child>,
}

impl Fleet {
    /// A cluster with the newest schema, the habit tracker published, a server and `workers` workers.
    pub async fn start(workers: usize) -> Self {
        let cluster = Cluster::throwaway().await.expect("a throwaway cluster starts");
        prepare(&cluster).await;
        let credentials = write_credentials(&cluster);
        krilin(&credentials, &["app", "publish", "habit-tracker"]);
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let listen = format!("http.listen=127.0.0.1:{port}");
        let server = spawn(&credentials, &["serve", "--set", &listen]);
        let superuser = cluster.url("postgres", DATABASE);
        let pool = store::pool(&superuser, "krilin-bench", 4).expect("a connection string of our own making");
        let base = format!("http://127.0.0.1:{port}");
        let mut fleet = Self { cluster, pool, base, credentials, server, workers: Vec::new() };
        for _ in 0..workers {
            let worker = fleet.worker();
            fleet.workers.push(worker);
        }
        fleet.ready().await;
        fleet
    }

    /// Starts one more worker, which the caller keeps.
    pub fn worker(&self) -> Child {
        spawn(&self.credentials, &["work"])
    }

    /// Adds `count` users with the habit tracker installed and a token each.
    pub fn users(&self, count: usize) -> Vec<User> {
        (0..count)
            .map(|number| {
                let name = format!("User {number}");
                let user = krilin(&self.credentials, &["user", "add", "--name", &name, "--timezone", "Europe/Berlin"]);
                let id = text(&user, "/user/id");
                krilin(&self.credentials, &["app", "install", "habit-tracker", "--user", &id]);
                let scopes = ["apps:call", "apps:read", "jobs:read", "jobs:write"].map(|scope| ["--scope", scope]);
                let mut create = vec!["token", "create", "--user", &id, "--name", "bench"];
                create.extend(scopes.iter().flatten());
                let token = text(&krilin(&self.credentials, &create), "/secret");
                User { token }
            })
            .collect()
    }

    async fn ready(&self) {
        let client = reqwest::Client::new();
        let begun = Instant::now();
        while begun.elapsed() < READY {
            let answer = client.get(format!("{}/readyz", self.base)).timeout(READY).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("the server was not ready within {} s", READY.as_secs());
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for process in self.workers.iter_mut().chain([&mut self.server]) {
            let _ = process.kill();
            let _ = process.wait();
        }
        let _ = fs::remove_dir_all(&self.credentials);
    }
}

/// The database with its newest schema, and a log as it is on a server that was busy before.
pub async fn prepare(cluster: &Cluster) {
    prepare_database(cluster, DATABASE).await;
    let mut admin = PgConnection::connect(cluster.superuser_url().expose()).await.expect("the cluster is ready");
    wal::settle(&mut admin).await;
}

/// Another database with the newest schema.
pub async fn prepare_database(cluster: &Cluster, name: &str) {
    let mut admin = PgConnection::connect(cluster.superuser_url().expose()).await.expect("the cluster is ready");
    schema::create_roles(&mut admin).await.expect("the superuser may create roles");
    schema::create_database(&mut admin, name, None).await.expect("the superuser may create a database");
    let owner = cluster.url("krilin_owner", name);
    let mut owner = PgConnection::connect(owner.expose()).await.expect("the owner may connect");
    schema::migrate(&mut owner).await.expect("the migrations apply to an empty database");
}

/// The two credentials in a directory of their own, as systemd would hand them over.
pub fn write_credentials(cluster: &Cluster) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("krilin-bench-{}", std::process::id()));
    fs::create_dir_all(&directory).expect("the temporary directory is ours to write to");
    for (name, role) in [("database_url", "krilin_runtime"), ("owner_database_url", "krilin_owner")] {
        let path = directory.join(name);
        fs::write(&path, cluster.url(role, DATABASE).expose()).expect("the directory was just made");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("the file was just made");
    }
    directory
}

fn command(credentials: &PathBuf, arguments: &[&str]) -> Command {
    let mut command = Command::new(KRILIN);
    command.args(arguments).env("CREDENTIALS_DIRECTORY", credentials).stdin(Stdio::null());
    command
}

/// A process that stays; only what it warns of is seen.
pub fn spawn(credentials: &PathBuf, arguments: &[&str]) -> Child {
    let mut command = command(credentials, arguments);
    command.args(["--log-level", "warn"]).stdout(Stdio::null());
    command.spawn().expect("the binary was built for this bench")
}

/// Runs a verb that answers and ends; its JSON.
fn krilin(credentials: &PathBuf, arguments: &[&str]) -> Value {
    let output = command(credentials, arguments).arg("--json").output().expect("the binary was built for this bench");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "krilin {}: {words}", arguments.join(" "));
    serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
}

fn text(answer: &Value, pointer: &str) -> String {
    let found = answer.pointer(pointer).and_then(Value::as_str);
    found.unwrap_or_else(|| panic!("{pointer} is not in {answer}")).to_owned()
}
