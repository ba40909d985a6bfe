//! `krilin queue`: the queue as a whole.

use clap::Subcommand;

use super::{context::Context, fsck};

/// Verbs of the queue.
#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Look whether the queue's invariants hold, on a live database; ends with 1 when one does not.
    #[command(
        after_help = "Examples:\n  krilin queue fsck\n  krilin queue fsck --json | jq '.findings[] | select(.count != 0)'"
    )]
    Fsck(fsck::Fsck),
}

impl Verb {
    pub(super) async fn run(self, context: &Context) -> anyhow::Result<()> {
        match self {
            Self::Fsck(verb) => verb.run(context).await,
        }
    }
}
