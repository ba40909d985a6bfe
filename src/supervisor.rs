//! What the service manager is told of this process: that it is ready, that it is alive, how things stand, that it stops.
//! systemd's protocol, sd_notify(3): datagrams of `NAME=VALUE` lines.
//!
//! Refuses to say "alive" on a timer. A process says of which loops its life consists ([`Supervisor::part`]); the word
//! goes out each time all of them have gone round, so one that is stuck starves the watchdog. Without a manager every
//! call costs one comparison.

use std::{
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// How long a manager that does not read may hold us up.
const SEND_TIMEOUT: Duration = Duration::from_millis(200);
/// What a stopping process asks for each time all its parts have gone round: it must be heard of again within this time,
/// beyond the unit's `TimeoutStopSec=`.
pub const STOP_EXTENSION: Duration = Duration::from_secs(15);

/// The service manager, or nobody. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Supervisor(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    socket: UnixDatagram,
    address: SocketAddr,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    parts: Vec<Arc<Mark>>,
    ready: bool,
    stopping: bool,
}

/// What one part did since the last word.
#[derive(Debug, Default)]
struct Mark {
    turned: AtomicBool,
    /// Whether it ever did what it is for; until all did, the process is not ready.
    well: AtomicBool,
}

impl Supervisor {
    /// The manager that listens at `address`, the value of `NOTIFY_SOCKET`: a path, or a name in the abstract namespace
    /// with `@` in front.
    pub fn at(address: &OsStr) -> io::Result<Self> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self(Some(Arc::new(Inner { socket, address, state: Mutex::default() }))))
    }

    /// Whether anybody listens.
    pub fn is_there(&self) -> bool {
        self.0.is_some()
    }

    /// One more loop that this process lives by. To be called for all of them before the first begins: the process is
    /// ready when all have done their first work.
    #[must_use]
    pub fn part(&self) -> Part {
        Part(self.0.as_ref().map(|inner| {
            let mark = Arc::new(Mark::default());
            inner.state().parts.push(mark.clone());
            (inner.clone(), mark)
        }))
    }

    /// One line for `systemctl status`.
    pub fn status(&self, words: &str) {
        if let Some(inner) = &self.0 {
            inner.send(&format!("STATUS={}\n", words.replace('\n', " ")));
        }
    }

    /// The process begins to stop. From here on every round of its parts asks for more time.
    pub fn stopping(&self) {
        let Some(inner) = &self.0 else { return };
        inner.state().stopping = true;
        inner.send(&format!("STOPPING=1\n{}", extension()));
    }
}

/// One loop that the process lives by. Dropped without [`Part::end`] (its task panicked, say) it counts as stuck.
#[derive(Debug)]
pub struct Part(Option<(Arc<Inner>, Arc<Mark>)>);

impl Part {
    /// A part of a process that nobody watches.
    pub fn unwatched() -> Self {
        Self(None)
    }

    /// It has gone round and done what it is for.
    pub fn beat(&self) {
        if let Some((inner, mark)) = &self.0
            && !(mark.turned.load(Ordering::Relaxed) && mark.well.load(Ordering::Relaxed))
        {
            mark.well.store(true, Ordering::Relaxed);
            mark.turned.store(true, Ordering::Relaxed);
            inner.look(&mut inner.state());
        }
    }

    /// It has gone round but could not do what it is for: alive, and no reason to be ready.
    pub fn turn(&self) {
        if let Some((inner, mark)) = &self.0
            && !mark.turned.swap(true, Ordering::Relaxed)
        {
            inner.look(&mut inner.state());
        }
    }

    /// It has done all it had to; the others go on without it.
    pub fn end(self) {
        if let Some((inner, mark)) = &self.0 {
            let mut state = inner.state();
            state.parts.retain(|part| !Arc::ptr_eq(part, mark));
            inner.look(&mut state);
        }
    }
}

impl Inner {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the word when every part has gone round since the last one.
    fn look(&self, state: &mut State) {
        if state.parts.is_empty() || !state.parts.iter().all(|part| part.turned.load(Ordering::Relaxed)) {
            return;
        }
        state.parts.iter().for_each(|part| part.turned.store(false, Ordering::Relaxed));
        let mut words = String::from("WATCHDOG=1\n");
        let ready = state.ready || state.parts.iter().all(|part| part.well.load(Ordering::Relaxed));
        if ready && !state.ready {
            words.insert_str(0, "READY=1\n");
        }
        if state.stopping {
            words.push_str(&extension());
        }
        if self.send(&words) {
            state.ready = ready;
        }
    }

    /// False when the manager did not take it; the next round says it again.
    fn send(&self, words: &str) -> bool {
        let sent = self.socket.send_to_addr(words.as_bytes(), &self.address);
        if let Err(error) = &sent {
            tracing::warn!(%error, "the service manager could not be told how things stand");
        }
        sent.is_ok()
    }
}

fn extension() -> String {
    format!("EXTEND_TIMEOUT_USEC={}\n", STOP_EXTENSION.as_micros())
}
