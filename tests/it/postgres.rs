//! The Postgres that all tests share: a private cluster, started by the first test process that needs one, stopped and
//! removed by itself when no test process has used it for a while. `KRILIN_TEST_POSTGRES` names another server: a
//! connection string of its superuser `postgres` with the placeholders `{user}` and `{database}`.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use krilin::cluster::{self, Cluster, Durability};
use tokio::sync::OnceCell;

/// Kept open for the life of the process: each test process holds the lock `users` shared.
static SHARED: OnceCell<(String, Option<File>)> = OnceCell::const_new();

/// Every few seconds: if nobody holds the lock `$1`, stop the Postgres in `$0` and remove it.
const WATCH: &str = r#"command -v flock >/dev/null || exit 0
while sleep 10; do
  flock --nonblock --exclusive "$1" sh -c '
    kill -QUIT "$(head -n 1 "$0/data/postmaster.pid")"
    while [ -e "$0/data/postmaster.pid" ]; do sleep 0.1; done
    rm -rf "$0"' "$0" && exit
done"#;

/// A connection string with the placeholders `{user}` and `{database}`.
pub async fn pattern() -> &'static str {
    let (pattern, _) = SHARED.get_or_init(find).await;
    pattern
}

#[expect(clippy::disallowed_methods, reason = "tests have no config")]
async fn find() -> (String, Option<File>) {
    if let Ok(pattern) = std::env::var("KRILIN_TEST_POSTGRES") {
        return (pattern, None);
    }
    let locks = Path::new(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(locks).unwrap();
    let users = File::create(locks.join("postgres.users")).unwrap();
    users.lock_shared().unwrap();
    let starting = File::create(locks.join("postgres.starting")).unwrap();
    starting.lock().unwrap();
    let directory = directory(locks);
    if !cluster::is_running(&directory) {
        start(&directory, &locks.join("postgres.users")).await;
    }
    (cluster::url(&directory, "{user}", "{database}"), Some(users))
}

/// In the temporary directory, because the target directory may be too deep for a socket's path, and because root's
/// Postgres, which is not root, must be able to enter. The name is this checkout's.
fn directory(locks: &Path) -> PathBuf {
    let mut hasher = DefaultHasher::new();
    locks.hash(&mut hasher);
    std::env::temp_dir().join(format!("krilin-test-{:016x}", hasher.finish()))
}

/// Starts afresh: what a crash may have left of a cluster without fsync is not worth repairing.
#[expect(clippy::zombie_processes, reason = "the watcher outlives this process; nobody here can wait for it")]
async fn start(directory: &Path, users: &Path) {
    let _ = fs::remove_dir_all(directory);
    Cluster::start(directory, Durability::None).await.unwrap();
    Command::new("sh")
        .args(["-c", WATCH])
        .args([directory, users])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
}
