//! Schedules: when something runs again, what becomes of runs that were missed, and what each fire came to. Pure; the
//! instant is always given. Refuses to fire by itself: that is the scheduler's.

mod judge;
mod line;
mod timing;
mod upcoming;
mod wanted;

use serde::{Deserialize, Serialize};

pub use self::{
    judge::{ALL_MAX, Before, CHUNK, Occurrence, Standing, Verdict, judge},
    line::Line,
    timing::{EVERY_SHORTEST, Timing, When},
    upcoming::{UPCOMING, Upcoming, upcoming},
    wanted::{Clockwork, Decided, Fault, Parts, TZDATA, USER_ZONE, Wanted},
};
pub use crate::model::manifest::{CatchUp, Overlap};

/// The kind that runs an action of an app.
pub const ACTION_KIND: &str = "app_action";

macro_rules! words {
    ($(#[doc = $about:literal])+ $name:ident { $($(#[doc = $doc:literal])+ $variant:ident $text:literal;)+ }) => {
        $(#[doc = $about])+
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[doc = $doc])+ $variant,)+ }

        impl $name {
            /// The name in JSON, SQL and on the command line.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }
        }

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!("`{text}` is none of {}", [$($text),+].join(", "))),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// Where a schedule stands.
    State {
        /// Fires when it is due.
        Active "active";
        /// Somebody paused it, or its jobs failed too often in a row.
        Paused "paused";
        /// Cannot be worked out, for the reason that it shows; everything else goes on.
        Parked "parked";
        /// A setting of its user switches it off.
        Off "off";
        /// Never fires again.
        Ended "ended";
    }
}

words! {
    /// Who made a schedule, and so who may change it.
    Origin {
        /// The manifest of an app: it comes and goes with the installation.
        Manifest "manifest";
        /// An app's code, through `ctx.schedule`.
        App "app";
        /// The user, over HTTP.
        User "user";
        /// The operator, on the command line.
        Operator "operator";
    }
}

words! {
    /// What a nominal fire came to.
    Outcome {
        /// A job was made.
        Fired "fired";
        /// A later fire stands for it.
        Coalesced "coalesced";
        /// Nothing was made, for the reason beside it.
        Skipped "skipped";
    }
}

/// What a job is told of the fire that made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fire {
    /// The schedule's name: within its app, or the operator's.
    pub id: String,
    /// When it was meant to fire.
    pub nominal_at: chrono::DateTime<chrono::Utc>,
    /// When it fired.
    pub fired_at: chrono::DateTime<chrono::Utc>,
    /// How many fires before this one were missed and are not made up for otherwise.
    pub missed: u32,
}
