//! Connections at hand. A pool tests a connection whenever it comes back, which is a round trip; a stack keeps those that
//! were answered well, and gives the one that was used last, so that no more are in use than are needed. Refuses to keep
//! one for which others may wait, and one that was dropped in the middle of something: those go back to the pool.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use sqlx::{PgConnection, PgPool, Postgres, pool::PoolConnection};
use tokio::runtime::Handle;

use super::{Error, Transaction, within};

/// A connection that is put back later than this after its pool gave it goes there: the pool looks how old it is.
const KEPT: Duration = Duration::from_mins(5);

/// Cheap to clone.
#[derive(Clone)]
pub struct Stack(Arc<Inner>);

struct Inner {
    pool: PgPool,
    /// At most so many lie here: half of the pool, for it has other guests.
    most: usize,
    at_hand: Mutex<Vec<Resting>>,
}

struct Resting {
    connection: PoolConnection<Postgres>,
    since: Instant,
}

impl Stack {
    /// Over the connections of `pool`.
    pub fn over(pool: &PgPool) -> Self {
        let most = usize::try_from(pool.options().get_max_connections() / 2).unwrap_or(usize::MAX).max(1);
        Self(Arc::new(Inner { pool: pool.clone(), most, at_hand: Mutex::default() }))
    }

    /// The pool below, for statements that are rare.
    pub fn pool(&self) -> &PgPool {
        &self.0.pool
    }

    /// For whoever looks at it and does not keep it.
    pub fn watched(&self) -> Watched {
        Watched(Arc::downgrade(&self.0))
    }

    /// How many lie here.
    pub fn at_hand(&self) -> usize {
        self.0.at_hand().len()
    }

    /// A connection for a statement: [`Connection::after`] puts it back.
    pub async fn take(&self) -> Result<Connection, Error> {
        let resting = self.0.at_hand().pop();
        match resting {
            Some(resting) => Ok(Connection::new(self, resting)),
            None => Box::pin(self.fresh()).await,
        }
    }

    /// Opens a transaction. A connection that died while it lay here costs nothing but another try.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        self.begin_with("begin").await
    }

    /// Opens a transaction with a statement of its own.
    pub async fn begin_with(&self, statement: &'static str) -> Result<Transaction, Error> {
        loop {
            let resting = self.0.at_hand().pop();
            let Some(resting) = resting else { break };
            match Transaction::begin(Connection::new(self, resting), statement).await {
                Err(Error::Unavailable(_)) => {}
                begun => return begun,
            }
        }
        Transaction::begin(Box::pin(self.fresh()).await?, statement).await
    }

    /// Asks the pool. Its future has eight kilobytes: whoever may come to need one boxes this, and need not carry it along.
    async fn fresh(&self) -> Result<Connection, Error> {
        let connection = within(self.0.pool.acquire()).await?;
        Ok(Connection::new(self, Resting { connection, since: Instant::now() }))
    }
}

/// A [`Stack`] as long as somebody uses it.
#[derive(Debug, Clone)]
pub struct Watched(Weak<Inner>);

impl Watched {
    /// The stack, while there is one.
    pub fn get(&self) -> Option<Stack> {
        self.0.upgrade().map(Stack)
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Stack").field("at_hand", &self.at_hand()).finish_non_exhaustive()
    }
}

impl Inner {
    fn at_hand(&self) -> MutexGuard<'_, Vec<Resting>> {
        self.at_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that was taken. Dropped, it goes back to the pool.
pub struct Connection {
    stack: Stack,
    pooled: PoolConnection<Postgres>,
    since: Instant,
}

impl Connection {
    fn new(stack: &Stack, resting: Resting) -> Self {
        Self { stack: stack.clone(), pooled: resting.connection, since: resting.since }
    }

    /// Puts it back if its statement was answered well; gives the answer.
    pub fn after<T, E>(self, answer: Result<T, E>) -> Result<T, E> {
        if answer.is_ok() {
            self.put_back();
        }
        answer
    }

    pub(super) fn put_back(self) {
        let Self { stack, pooled, since } = self;
        let pool = &stack.0.pool;
        // Who waits for a connection waits at the pool: where it has none left, this one is for them.
        if pool.num_idle() == 0 && pool.size() >= pool.options().get_max_connections() {
            return;
        }
        let mut at_hand = stack.0.at_hand();
        if since.elapsed() < KEPT && at_hand.len() < stack.0.most {
            at_hand.push(Resting { connection: pooled, since });
        }
    }

    /// Rolls back what may be open on it; then it goes to the pool, or is closed.
    pub(super) fn roll_back(mut self) {
        // Without a runtime the process ends, and the connection with it.
        let Ok(runtime) = Handle::try_current() else { return self.pooled.close_on_drop() };
        runtime.spawn(async move {
            if within(sqlx::raw_sql("rollback").execute(&mut *self.pooled)).await.is_err() {
                self.pooled.close_on_drop();
            }
        });
    }
}

impl Deref for Connection {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.pooled
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.pooled
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Connection").finish_non_exhaustive()
    }
}
