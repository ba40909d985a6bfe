//! What a child gives up before it reads its first frame: files, sockets, processes, new privileges, and most of the
//! kernel. The engine may be broken into; what is broken into is an empty room.

use std::{collections::BTreeMap, io};

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetCreated, Scope};
use rlimit::Resource;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::limits::{ADDRESS_SPACE_BYTES, CHILD_CPU_SECONDS};

/// Locks this process down for good. After it, only memory, clocks, descriptors 0 to 2 and the exit are left.
pub(super) fn apply() -> io::Result<()> {
    // The parent's end is ours, also when it had no time to say so.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // Neither core dumps nor ptrace by other processes of the same user.
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    limit_resources()?;
    restrict_files();
    let filter = filter().map_err(io::Error::other)?;
    seccompiler::apply_filter(&filter).map_err(io::Error::other)
}

fn limit_resources() -> io::Result<()> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let baseline =
        status.lines().find_map(|line| line.strip_prefix("VmSize:")?.trim().strip_suffix(" kB")?.parse().ok());
    let baseline: u64 = baseline.ok_or_else(|| io::Error::other("no VmSize in /proc/self/status"))?;
    let space = (baseline << 10) + ADDRESS_SPACE_BYTES;
    let limits = [
        (Resource::AS, space),
        (Resource::CPU, CHILD_CPU_SECONDS),
        (Resource::CORE, 0),
        (Resource::FSIZE, 0),
        (Resource::NPROC, 0),
    ];
    for (resource, limit) in limits {
        rlimit::setrlimit(resource, limit, limit)?;
    }
    Ok(())
}

/// Landlock, where the kernel has it. It is the second wall: the seccomp filter forbids opening anything already, so a
/// kernel without Landlock is no reason to refuse.
fn restrict_files() {
    let abi = ABI::V6;
    let _second_wall = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
        .and_then(|rules| rules.scope(Scope::from_all(abi)))
        .and_then(Ruleset::create)
        .and_then(RulesetCreated::restrict_self);
}

/// Allows what the engine needs; anything else kills the process.
fn filter() -> Result<BpfProgram, seccompiler::BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = [
        libc::SYS_brk,
        libc::SYS_clock_gettime,
        libc::SYS_exit,
        libc::SYS_exit_group,
        libc::SYS_futex,
        libc::SYS_getrandom,
        libc::SYS_gettimeofday,
        libc::SYS_madvise,
        libc::SYS_mremap,
        libc::SYS_munmap,
        libc::SYS_restart_syscall,
        libc::SYS_rt_sigprocmask,
        libc::SYS_rt_sigreturn,
        libc::SYS_sigaltstack,
    ]
    .into_iter()
    .map(|call| (call, Vec::new()))
    .collect();
    // A descriptor that leaked into the child is of no use to it.
    rules.insert(libc::SYS_read, vec![first_is(0)?]);
    rules.insert(libc::SYS_write, vec![first_is(1)?, first_is(2)?]);
    // Memory is anonymous and never executable.
    let anonymous = equals(4, SeccompCmpArgLen::Dword, u64::from(u32::MAX))?;
    let not_executable = SeccompCondition::new(2, SeccompCmpArgLen::Dword, SeccompCmpOp::MaskedEq(PROT_EXEC), 0)?;
    rules.insert(libc::SYS_mmap, vec![SeccompRule::new(vec![anonymous, not_executable])?]);
    let arch = std::env::consts::ARCH.try_into()?;
    SeccompFilter::new(rules, SeccompAction::KillProcess, SeccompAction::Allow, arch)?.try_into()
}

/// `PROT_EXEC`, the bit of `mmap`'s third argument.
const PROT_EXEC: u64 = 4;

fn first_is(descriptor: u64) -> Result<SeccompRule, seccompiler::BackendError> {
    SeccompRule::new(vec![equals(0, SeccompCmpArgLen::Dword, descriptor)?])
}

fn equals(index: u8, length: SeccompCmpArgLen, value: u64) -> Result<SeccompCondition, seccompiler::BackendError> {
    SeccompCondition::new(index, length, SeccompCmpOp::Eq, value)
}

/// Attempts what a broken engine might: for the test of the walls, reached by `krilin sandbox --probe NAME`. Returns only
/// if the walls are down.
pub(super) fn probe(name: &str) {
    match name {
        "open" => drop(std::fs::File::open("/etc/passwd")),
        "write" => drop(std::fs::write("/tmp/krilin-probe", "x")),
        "socket" => drop(std::net::TcpStream::connect("127.0.0.1:9")),
        "fork" => drop(std::process::Command::new("/bin/true").spawn()),
        "thread" => drop(std::thread::Builder::new().spawn(|| ())),
        "environment" => std::process::exit(i32::from(std::env::vars_os().any(|(name, _)| name != "TZ"))),
        _ => {}
    }
}
