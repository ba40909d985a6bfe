//! The private cluster: started, stopped, kept, and refused with words that help.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use krilin::{
    cluster::{self, Cluster, Durability, Error, StateLock},
    store,
};

/// A directory of its own for one test, removed with it.
pub struct Directory(pub PathBuf);

impl Directory {
    /// A new directory that everybody may enter, with a short path.
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("krilin-it-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

async fn count(cluster: &Cluster) -> i64 {
    let mut connection = store::connect(&cluster.superuser_url(), "test").await.unwrap();
    sqlx::query_scalar("select count(*) from kept").fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn a_stopped_cluster_keeps_its_data_and_a_crashed_one_too() {
    let directory = Directory::new("keeps");
    let mut cluster = Cluster::start(&directory.0.join("postgres"), Durability::Full).await.unwrap();
    let mut connection = store::connect(&cluster.superuser_url(), "test").await.unwrap();
    sqlx::raw_sql("create table kept (id int); insert into kept values (1)").execute(&mut connection).await.unwrap();
    cluster.stop().await.unwrap();
    assert!(!cluster::is_running(cluster.directory()));
    cluster.resume().await.unwrap();
    assert_eq!(count(&cluster).await, 1);
    cluster.crash().await.unwrap();
    cluster.resume().await.unwrap();
    assert_eq!(count(&cluster).await, 1);
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_server_left_behind_is_replaced_and_a_stale_pid_file_is_no_obstacle() {
    let directory = Directory::new("left");
    let root = directory.0.join("postgres");
    let left_behind = Cluster::start(&root, Durability::None).await.unwrap();
    let old = left_behind.pid().unwrap();
    drop(left_behind);
    assert!(cluster::is_running(&root));

    let mut cluster = Cluster::start(&root, Durability::None).await.unwrap();
    assert_ne!(cluster.pid().unwrap(), old);
    cluster.stop().await.unwrap();

    // This test's own process is alive and is no Postgres, as after a crash when the number was given away again.
    fs::write(root.join("data/postmaster.pid"), format!("{}\n", std::process::id())).unwrap();
    let mut cluster = Cluster::start(&root, Durability::None).await.unwrap();
    cluster.stop().await.unwrap();
}

#[tokio::test]
async fn a_throwaway_cluster_leaves_nothing() {
    let cluster = Cluster::throwaway().await.unwrap();
    let root = cluster.directory().to_path_buf();
    let mode = fs::metadata(root.join("socket")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "only the owner enters the socket's directory");
    store::connect(&cluster.superuser_url(), "test").await.unwrap();
    tokio::task::spawn_blocking(move || drop(cluster)).await.unwrap();
    assert!(!root.exists());
}

#[tokio::test]
async fn a_path_too_long_for_a_socket_is_refused_before_anything_is_made() {
    let root = std::env::temp_dir().join("x".repeat(120));
    let error = Cluster::start(&root, Durability::None).await.unwrap_err();
    assert!(matches!(error, Error::SocketPath { .. }), "{error}");
    assert!(error.to_string().contains("107"), "{error}");
    assert!(!root.exists());
}

#[test]
fn a_state_directory_has_one_owner_and_the_error_names_it() {
    let directory = Directory::new("lock");
    let lock = StateLock::acquire(&directory.0).unwrap();
    let error = StateLock::acquire(&directory.0).unwrap_err();
    assert!(error.to_string().contains(&format!("(process {})", std::process::id())), "{error}");
    drop(lock);
    StateLock::acquire(&directory.0).unwrap();
}

#[tokio::test]
async fn a_directory_that_cannot_be_made_is_named() {
    let error = Cluster::start(&PathBuf::from("/proc/krilin"), Durability::None).await.unwrap_err();
    assert!(error.to_string().contains("/proc/krilin"), "{error}");
}
