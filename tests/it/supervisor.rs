//! What the service manager hears: a real datagram socket stands in for systemd, and real processes speak to it.

use std::{
    ffi::OsString,
    io::{BufRead, BufReader},
    net::TcpListener,
    os::{linux::net::SocketAddrExt, unix::net::SocketAddr},
    path::Path,
    process::{Child, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use krilin::supervisor::Supervisor;
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::UnixDatagram;

use crate::{
    cli::{give_credentials, krilin},
    cluster::Directory,
    kinds::Kit,
    world::World,
};

/// The longest to wait for a word.
const PATIENCE: Duration = Duration::from_secs(30);

/// A socket that hears what systemd would hear.
struct Ear {
    socket: UnixDatagram,
    address: OsString,
}

impl Ear {
    /// One with a name in the abstract namespace, as systemd has in containers.
    fn abstract_name() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("krilin-test-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = std::os::unix::net::UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        Self { socket: UnixDatagram::from_std(socket).unwrap(), address: format!("@{name}").into() }
    }

    /// One in the file system, as systemd has on a machine.
    fn path(directory: &Path) -> Self {
        let path = directory.join("notify");
        Self { socket: UnixDatagram::bind(&path).unwrap(), address: path.into() }
    }

    /// The next datagram's lines, within `patience`.
    async fn within(&self, patience: Duration) -> Option<Vec<String>> {
        let mut buffer = [0; 4096];
        let length = tokio::time::timeout(patience, self.socket.recv(&mut buffer)).await.ok()?.unwrap();
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap().lines().map(str::to_owned).collect())
    }

    /// Hears until a datagram has the line `wanted`; gives all lines on the way, in order.
    async fn until(&self, wanted: impl Fn(&str) -> bool) -> Vec<String> {
        let (begun, mut heard) = (Instant::now(), Vec::new());
        while begun.elapsed() < PATIENCE {
            let Some(lines) = self.within(PATIENCE).await else { break };
            let found = lines.iter().any(|line| wanted(line));
            heard.extend(lines);
            if found {
                return heard;
            }
        }
        panic!("heard only {heard:?}");
    }

    /// What has been said and not heard yet.
    async fn rest(&self) -> Vec<String> {
        let mut heard = Vec::new();
        while let Some(lines) = self.within(Duration::from_millis(1)).await {
            heard.extend(lines);
        }
        heard
    }
}

/// A process that ends with this value.
struct Process(Child);

impl Process {
    fn end(&mut self) -> bool {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        tokio::task::block_in_place(|| self.0.wait()).unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(directory: &Path, verb: &str, ear: &Ear) -> Process {
    let mut command = krilin(directory);
    command.arg(verb).env("NOTIFY_SOCKET", &ear.address).stdout(Stdio::piped()).stderr(Stdio::null());
    if verb == "serve" {
        command.args(["--listen", "127.0.0.1:0"]);
    }
    Process(command.spawn().unwrap())
}

/// The place of the first line that begins so.
fn place(heard: &[String], begin: &str) -> usize {
    heard.iter().position(|line| line.starts_with(begin)).unwrap_or_else(|| panic!("no {begin} in {heard:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_says_that_it_is_ready_alive_how_it_stands_and_that_it_stops() {
    let (world, directory) = (World::new().await, Directory::new("supervised-work"));
    give_credentials(&directory.0, &world);
    let ear = Ear::path(&directory.0);
    let mut worker = start(&directory.0, "work", &ear);
    let mut heard = ear.until(|line| line == "READY=1").await;
    assert!(!heard.iter().any(|line| line.starts_with("STOPPING")), "{heard:?}");
    heard.extend(ear.until(|line| line.starts_with("STATUS=0 in flight, ")).await);
    // The one that comes with READY is the first; the next is the heartbeat's.
    heard.extend(ear.until(|line| line == "WATCHDOG=1").await);
    assert!(worker.end());
    heard.extend(ear.rest().await);
    assert_eq!(heard.iter().filter(|line| *line == "READY=1").count(), 1, "{heard:?}");
    let stopping = place(&heard, "STOPPING=1");
    assert!(place(&heard, "READY=1") < stopping, "{heard:?}");
    assert_eq!(heard[stopping + 1], "EXTEND_TIMEOUT_USEC=15000000", "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_on_a_schema_that_it_does_not_know_is_never_ready() {
    let (world, directory) = (World::new().await, Directory::new("supervised-never"));
    give_credentials(&directory.0, &world);
    sqlx::raw_sql("delete from krilin._sqlx_migrations where version > 1").execute(&world.owner).await.unwrap();
    let ear = Ear::abstract_name();
    let mut worker = start(&directory.0, "work", &ear);
    assert!(!tokio::task::block_in_place(|| worker.0.wait()).unwrap().success());
    assert_eq!(ear.rest().await, [] as [String; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_says_that_it_is_ready_and_that_it_stops() {
    let (world, directory) = (World::new().await, Directory::new("supervised-serve"));
    give_credentials(&directory.0, &world);
    let ear = Ear::abstract_name();
    let mut server = start(&directory.0, "serve", &ear);
    ear.until(|line| line == "READY=1").await;
    let mut heard = ear.until(|line| line.starts_with("STATUS=0 connections")).await;
    assert!(server.end());
    heard.extend(ear.rest().await);
    assert!(place(&heard, "STATUS=") < place(&heard, "STOPPING=1"), "{heard:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_claim_loop_that_is_stuck_starves_the_watchdog() {
    let mut kinds = Kit::new().await;
    let ear = Ear::abstract_name();
    kinds.options.supervisor = Supervisor::at(&ear.address).unwrap();
    kinds.options.lease = Duration::from_millis(300);
    kinds.options.poll = Duration::from_millis(50);
    let worker = kinds.worker();
    ear.until(|line| line == "READY=1").await;
    ear.until(|line| line == "WATCHDOG=1").await;

    // Nobody else's statement waits for this lock so long: the heartbeat, with nothing to renew, goes on.
    let mut blocker = kinds.world.owner.begin().await.unwrap();
    sqlx::raw_sql("lock table krilin.jobs in access exclusive mode").execute(&mut *blocker).await.unwrap();
    // What was on its way; then the heartbeat alone.
    while ear.within(Duration::from_millis(400)).await.is_some_and(|lines| lines.contains(&"WATCHDOG=1".to_owned())) {}
    let starving = ear.within(Duration::from_secs(2)).await.unwrap_or_default();
    assert!(!starving.contains(&"WATCHDOG=1".to_owned()), "{starving:?}");

    blocker.rollback().await.unwrap();
    ear.until(|line| line == "WATCHDOG=1").await;
    assert!(worker.stop().await);
}

#[tokio::test]
async fn a_part_that_is_gone_without_a_word_counts_as_stuck_and_one_that_ended_does_not() {
    let ear = Ear::abstract_name();
    let supervisor = Supervisor::at(&ear.address).unwrap();
    let (first, second, third) = (supervisor.part(), supervisor.part(), supervisor.part());
    first.beat();
    second.turn();
    third.end();
    assert_eq!(ear.rest().await, ["WATCHDOG=1"], "one has gone round without its work: alive, but not ready");
    first.turn();
    second.beat();
    assert_eq!(ear.rest().await, ["READY=1", "WATCHDOG=1"]);
    supervisor.stopping();
    assert_eq!(ear.rest().await, ["STOPPING=1", "EXTEND_TIMEOUT_USEC=15000000"]);
    first.beat();
    second.beat();
    assert_eq!(ear.rest().await, ["WATCHDOG=1", "EXTEND_TIMEOUT_USEC=15000000"]);
    drop(second);
    first.beat();
    first.beat();
    assert_eq!(ear.rest().await, [] as [String; 0]);
}

#[test]
fn an_address_that_is_none_is_refused_and_a_manager_that_has_gone_is_survived() {
    assert!(Supervisor::at("vsock:2:9".as_ref()).is_err());
    let gone = Supervisor::at("@krilin-test-nobody".as_ref()).unwrap();
    gone.part().beat();
    gone.stopping();
    Supervisor::default().part().beat();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_takes_the_socket_it_is_given_and_who_comes_while_it_is_away_is_not_refused() {
    let (world, directory) = (World::new().await, Directory::new("supervised-socket"));
    give_credentials(&directory.0, &world);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/healthz", listener.local_addr().unwrap());
    let mut first = inheriting(&directory.0, &listener);
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 200);
    assert!(first.end());

    // Nobody accepts now; the socket is open all the same.
    let waiting = tokio::spawn(reqwest::get(url.clone()));
    let mut second = inheriting(&directory.0, &listener);
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    assert!(second.end());
}

/// A server that finds `listener` as descriptor 3, as systemd passes sockets in; waits until it answers.
fn inheriting(directory: &Path, listener: &TcpListener) -> Process {
    let mut command = std::process::Command::new("sh");
    // The shell puts its standard input where systemd puts sockets, and becomes the server.
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$0\" serve --json";
    let binary = krilin(directory);
    command.args(["-c", script]).arg(binary.get_program()).current_dir(directory).env_remove("CREDENTIALS_DIRECTORY");
    command.stdin(std::os::fd::OwnedFd::from(listener.try_clone().unwrap())).stderr(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    assert!(line.contains(&port), "`{line}` does not name port {port}");
    Process(child)
}
