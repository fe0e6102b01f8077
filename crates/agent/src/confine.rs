//! What processes that hear strangers give up first: core dumps, other programs, other identities, listening.
//!
//! The link half parses what comes from outside, so it is the half that may be taken over. It then holds descriptors of
//! running sessions and nothing else, and the filter keeps it from starting, tracing or becoming anything (T-74). The
//! copy worker gives up the network as well.

use std::collections::BTreeMap;

use anyhow::Context;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// Refused with EPERM. `bind` and `listen`: nothing ever listens on a node. (glibc binds a netlink socket while it
/// sorts addresses; refused, it assumes that both address families are there.)
const DENIED: &[i64] = &[
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_kill,
    libc::SYS_pidfd_send_signal,
    libc::SYS_pidfd_getfd,
    libc::SYS_bind,
    libc::SYS_listen,
    libc::SYS_accept,
    libc::SYS_accept4,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_open_by_handle_at,
    // Its operations pass no filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// What a process needs to start others of its kind and to end them.
const FOR_PROGRAMS: &[i64] = &[libc::SYS_execve, libc::SYS_execveat, libc::SYS_kill];

/// Confines this process and everything that it starts from here on; calls in `also` are refused too. Call while it has
/// one thread.
pub(crate) fn confine(also: &[i64]) -> anyhow::Result<()> {
    confine_but_for(&[], also)
}

/// As [`confine`], but it may run programs, which are confined as it is.
pub(crate) fn confine_with_programs(also: &[i64]) -> anyhow::Result<()> {
    confine_but_for(FOR_PROGRAMS, also)
}

fn confine_but_for(allowed: &[i64], also: &[i64]) -> anyhow::Result<()> {
    nix::sys::prctl::set_dumpable(false).context("failed to protect this process's memory")?;
    nix::sys::prctl::set_no_new_privs().context("failed to renounce new privileges")?;
    let denied: BTreeMap<i64, Vec<_>> = DENIED
        .iter()
        .chain(also)
        .filter(|number| !allowed.contains(number))
        .map(|number| (*number, Vec::new()))
        .collect();
    let refuse = SeccompAction::Errno(libc::EPERM.cast_unsigned());
    let arch = std::env::consts::ARCH.try_into().context("this processor has no system call filter")?;
    let filter =
        SeccompFilter::new(denied, SeccompAction::Allow, refuse, arch).context("failed to build the filter")?;
    let program: BpfProgram = filter.try_into().context("failed to compile the filter")?;
    seccompiler::apply_filter(&program).context("failed to apply the system call filter")
}
