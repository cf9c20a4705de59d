//! For threads that must not be late: those of the membership and of BFD. The one system call that std does not have.
#![allow(unsafe_code)] // setpriority takes three numbers and touches no memory of ours

use std::io;

use libc::c_int;

/// Before everything that was not raised itself; far from what the kernel's own threads have.
const NICE: c_int = -11;

/// Raises the priority of the calling thread, so that a busy node does not make it late. Needs CAP_SYS_NICE, or a limit
/// (RLIMIT_NICE) that allows it.
pub(crate) fn raise_priority() -> io::Result<()> {
    // SAFETY: plain numbers. On Linux PRIO_PROCESS with 0 is the calling thread alone (setpriority(2), "C library/kernel
    // differences").
    match unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
