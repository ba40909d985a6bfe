//! `krilin queue fsck`: do the queue's invariants hold? Reads one snapshot of a live database; changes nothing.

use std::fmt;

use anyhow::{Context as _, bail};
use clap::Args;
use serde::Serialize;

use super::context::Context;
use crate::{
    jobs::retention::{HISTORY_KEPT, KEYS_KEPT},
    model::duration::HumanDuration,
    queue::fsck::{self, Finding},
    store::{self, schema},
};

/// What to look at, and for how long.
#[derive(Debug, Args)]
pub(super) struct Fsck {
    /// The longest one of its statements may run; what takes longer is told as not looked at.
    #[arg(long, value_name = "DURATION", default_value_t = HumanDuration(fsck::TIMEOUT))]
    timeout: HumanDuration,
}

#[derive(Debug, Serialize)]
struct Report {
    findings: Vec<Finding>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Finding { name, promise, count, examples, unknown, remedy } in &self.findings {
            match (count, unknown) {
                (Some(0), _) => writeln!(f, "ok    {name}")?,
                (Some(count), _) => writeln!(f, "FAIL  {name}: {count} against “{promise}”")?,
                (None, Some(why)) => writeln!(f, "?     {name}: not looked at: {why}")?,
                (None, None) => writeln!(f, "?     {name}: not looked at")?,
            }
            for example in examples {
                writeln!(f, "        {example}")?;
            }
            if count.is_some_and(|count| count > i64::try_from(examples.len()).unwrap_or(i64::MAX)) {
                writeln!(f, "        …")?;
            }
            if let Some(remedy) = remedy {
                writeln!(f, "      → {remedy}")?;
            }
        }
        let held = self.findings.iter().filter(|finding| finding.holds()).count();
        write!(f, "{held} of {} invariants hold.", self.findings.len())
    }
}

impl Fsck {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        let mut db = store::connect(&context.database_url()?, "krilin-fsck").await.context("connecting")?;
        schema::check(&schema::status(&mut db).await.context("reading the schema's version")?)?;
        let bounds = fsck::bounds(KEYS_KEPT, HISTORY_KEPT, self.timeout.0);
        let findings = fsck::check(&mut db, &bounds).await.context("looking at the invariants")?;
        let (broken, unknown) =
            findings.iter().filter(|finding| !finding.holds()).fold((0, 0), |(broken, unknown), f| {
                if f.count.is_some() { (broken + 1, unknown) } else { (broken, unknown + 1) }
            });
        context.answer(&Report { findings })?;
        match (broken, unknown) {
            (0, 0) => Ok(()),
            (0, unknown) => bail!("{unknown} of the invariants could not be looked at; a longer --timeout may help"),
            (broken, 0) => bail!("{broken} of the invariants do not hold"),
            (broken, unknown) => bail!("{broken} of the invariants do not hold, {unknown} could not be looked at"),
        }
    }
}
