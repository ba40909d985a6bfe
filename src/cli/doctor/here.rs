//! Checks of this machine: programs, configuration, credentials.

use super::{Check, Context};
use crate::{cluster::Binaries, config::credentials};

pub(super) fn checks(context: &Context) -> Vec<Check> {
    let mut checks = vec![configuration(context)];
    checks.extend(credentials::ALL.map(|(name, _)| credential(context, name)));
    checks.push(binaries(context));
    checks
}

fn configuration(context: &Context) -> Check {
    match context.loaded() {
        Ok(loaded) => {
            let changed = loaded.entries.iter().filter(|entry| !entry.is_default()).count();
            Check::ok("configuration", format!("{} keys, {changed} of them changed", loaded.entries.len()))
        }
        Err(error) => {
            Check::fail("configuration", format!("{error:#}"), "correct or remove that key; see config/README.md")
        }
    }
}

fn credential(context: &Context, name: &'static str) -> Check {
    let found = context.credential_directories().and_then(|directories| Ok(credentials::find(name, &directories)?));
    match found {
        Ok(Some(found)) if found.world_readable => {
            let path = found.path.display();
            Check::warn(name, format!("everybody on this machine can read `{path}`"), &format!("chmod 600 {path}"))
        }
        Ok(Some(found)) => Check::ok(name, format!("in `{}`", found.path.display())),
        Ok(None) => match context.private_cluster() {
            Ok(Some(directory)) => Check::ok(name, format!("the private cluster in `{}`", directory.display())),
            _ => Check::warn(
                name,
                "is not there, and there is no private cluster yet",
                "`krilin up` makes a private cluster; or put a connection string into config/credentials/ or $CREDENTIALS_DIRECTORY",
            ),
        },
        Err(error) => Check::fail(name, format!("{error:#}"), "correct or remove that file"),
    }
}

fn binaries(context: &Context) -> Check {
    let needed = context.given_credential(credentials::DATABASE_URL).is_ok_and(|given| given.is_none());
    match Binaries::find(None) {
        Ok(found) => Check::ok("postgres", format!("version {} in `{}`", found.major, found.directory.display())),
        Err(_) if !needed => Check::ok("postgres", "no server is installed here, and none is needed"),
        Err(error) => Check::fail("postgres", error.to_string(), "install it, or give the credential `database_url`"),
    }
}
