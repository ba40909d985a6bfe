//! A transaction on a connection of a [`Stack`](super::Stack). Refuses to stay open: dropped, it rolls back.
//!
//! sqlx does not count it: a savepoint inside is made by a statement, as in `rows`, never by `sqlx::Connection::begin`, which
//! would take itself for the outermost and commit everything.

use std::{
    mem,
    ops::{Deref, DerefMut},
};

use sqlx::PgConnection;

use super::{Error, stack::Connection, within};

/// An open transaction. Commit it, or drop it, and nothing has happened.
#[derive(Debug)]
pub struct Transaction(State);

#[derive(Debug)]
enum State {
    Open(Connection),
    Ended,
}

impl Transaction {
    pub(super) async fn begin(connection: Connection, statement: &'static str) -> Result<Self, Error> {
        // Whoever gives up in the middle of it drops a transaction that may be open.
        let mut begun = Self(State::Open(connection));
        within(sqlx::raw_sql(statement).execute(&mut *begun)).await?;
        Ok(begun)
    }

    /// Commits. After an error nobody knows whether it did.
    pub async fn commit(mut self) -> Result<(), Error> {
        within(sqlx::raw_sql("commit").execute(&mut *self)).await?;
        if let State::Open(connection) = mem::replace(&mut self.0, State::Ended) {
            connection.put_back();
        }
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        match &self.0 {
            State::Open(connection) => connection,
            State::Ended => unreachable!("only its end and its drop end it"),
        }
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut PgConnection {
        match &mut self.0 {
            State::Open(connection) => connection,
            State::Ended => unreachable!("only its end and its drop end it"),
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if let State::Open(connection) = mem::replace(&mut self.0, State::Ended) {
            connection.roll_back();
        }
    }
}
