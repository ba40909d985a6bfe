//! Postgres' settings for a private cluster on a small machine.

use std::{fmt::Write, path::Path};

/// Whether a commit survives a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Yes. The only choice for data that anybody wants to keep.
    Full,
    /// No: for tests, whose data nobody misses.
    None,
}

/// Settings with the reason for each.
const ALWAYS: [(&str, &str, &str); 15] = [
    ("listen_addresses", "''", "the socket in a private directory is the only door"),
    ("port", "5432", "names the socket; nothing listens on TCP"),
    ("unix_socket_permissions", "0700", "a second lock on that door"),
    ("max_connections", "200", "serve, work, the command line and benches with many workers"),
    ("shared_buffers", "'128MB'", "leaves a machine with 1 GB its page cache"),
    ("max_wal_size", "'1GB'", "fewer checkpoints while the queue is busy"),
    (
        "min_wal_size",
        "'512MB'",
        "the log's files are written over: one made anew is filled with zeros in the middle of a commit",
    ),
    ("checkpoint_timeout", "'15min'", "after each checkpoint every page is logged whole once more"),
    ("autovacuum_naptime", "'5s'", "queue tables turn over quickly; dead rows must go before they slow claims"),
    ("autovacuum_vacuum_cost_delay", "'1ms'", "and the vacuum that does it must keep up"),
    ("jit", "off", "our statements take milliseconds; compiling them takes longer"),
    ("timezone", "'UTC'", "instants are stored and logged in UTC; zones belong to users"),
    ("log_timezone", "'UTC'", "the same for the log"),
    ("log_line_prefix", "'%m [%p] %q%a '", "when, which process, which part of krilin"),
    ("idle_in_transaction_session_timeout", "'5min'", "a forgotten transaction must not hold back vacuum for ever"),
];

const NOT_DURABLE: [(&str, &str, &str); 3] = [
    ("fsync", "off", "nobody misses this data"),
    ("synchronous_commit", "off", "nobody misses this data"),
    ("full_page_writes", "off", "nobody misses this data"),
];

/// The text of `postgresql.conf`.
pub(super) fn postgresql_conf(socket: &Path, durability: Durability) -> String {
    let mut text =
        "# Written by krilin at every start; put your own settings into operator.conf beside this file.\n".to_owned();
    let quoted = socket.display().to_string().replace('\'', "''");
    let _ = writeln!(text, "unix_socket_directories = '{quoted}'");
    let extra: &[_] = if durability == Durability::None { &NOT_DURABLE } else { &[] };
    for (name, value, reason) in ALWAYS.iter().chain(extra) {
        let _ = writeln!(text, "{name} = {value}  # {reason}");
    }
    text.push_str("include_if_exists = 'operator.conf'\n");
    text
}

/// The text of `pg_hba.conf`: whoever may enter the socket's directory may connect, and nobody else can.
pub(super) const PG_HBA_CONF: &str = "# Written by krilin at every start. The socket's directory is the lock.\n\
                                      local all all trust\n";
