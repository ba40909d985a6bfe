//! Runs a plan inside the caller's transaction. What fails leaves nothing behind, because the caller rolls
//! back; a dry run is the same run with the rollback meant.

use std::collections::BTreeSet;

use sqlx::PgConnection;

use super::{
    Error,
    design::{self, Design},
    plan::{self, Step},
};
use crate::{
    model::{id::AppId, manifest::Table},
    store::{self, tables},
};

/// A step that was run.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Done {
    /// What it did, in words.
    pub step: String,
    /// The statement.
    pub sql: String,
    /// The rows it rewrote, filled or removed, where it is of that sort.
    pub rows: Option<i64>,
}

/// What is to become of an app's tables.
#[derive(Debug, Clone, Copy)]
pub struct Migration<'a> {
    /// Whose tables.
    pub app: &'a AppId,
    /// To which version, for messages.
    pub version: &'a str,
    /// The tables as they are declared now.
    pub old: &'a [Table],
    /// The tables as they are to be.
    pub new: &'a [Table],
    /// Tables and columns whose data may go.
    pub drops: &'a [String],
}

impl Migration<'_> {
    /// Brings the tables from `old` to `new`. The connection is the owner's, in a transaction.
    pub async fn run(&self, db: &mut PgConnection) -> Result<Vec<Done>, Error> {
        let old = design::design(self.app, self.old).map_err(|reasons| self.refused(reasons))?;
        let new = design::design(self.app, self.new).map_err(|reasons| self.refused(reasons))?;
        let steps = plan::plan(self.app, &old, &new, self.drops).map_err(|reasons| self.refused(reasons))?;
        if steps.is_empty() {
            return Ok(Vec::new());
        }
        tables::prepare(&mut *db).await?;
        self.fence(db, &old, &new, false).await?;
        let mut done = Vec::with_capacity(steps.len());
        for step in steps {
            done.push(self.step(db, step).await?);
        }
        self.fence(db, &old, &new, true).await?;
        Ok(done)
    }

    async fn step(&self, db: &mut PgConnection, step: Step) -> Result<Done, Error> {
        let rows = match &step.counted_by {
            Some(sql) => Some(tables::count(db, sql).await?),
            None => None,
        };
        let result = tables::change(db, &step.sql).await;
        result.map_err(|error| match error {
            store::Error::Serialization(_) => Error::Busy(self.app.clone()),
            store::Error::Constraint(_) => {
                let reason =
                    step.if_refused.clone().unwrap_or_else(|| format!("{}: the rows do not allow it", step.words));
                self.refused(vec![reason])
            }
            error if error.is_data_exception() => {
                self.refused(vec![format!("{}: a default or a value does not fit its type", step.words)])
            }
            error => Error::Store(error),
        })?;
        Ok(Done { step: step.words, sql: step.sql, rows })
    }

    /// Row-level security holds the owner too, so the owner would count and change no row. It steps aside for the
    /// transaction, which nobody else sees: altering a table locks out everybody until it ends.
    async fn fence(&self, db: &mut PgConnection, old: &Design, new: &Design, up: bool) -> Result<(), Error> {
        let there: BTreeSet<&str> = old
            .values()
            .filter(|table| !up || new.contains_key(&table.table))
            .map(|table| table.physical.as_str())
            .collect();
        let force = if up { "force" } else { "no force" };
        for physical in there {
            let sql = format!("alter table {physical} {force} row level security");
            tables::change(db, &sql).await.map_err(|error| match error {
                store::Error::Serialization(_) => Error::Busy(self.app.clone()),
                error => Error::Store(error),
            })?;
        }
        Ok(())
    }

    fn refused(&self, reasons: Vec<String>) -> Error {
        Error::Refused { app: self.app.clone(), version: self.version.to_owned(), reasons }
    }
}
