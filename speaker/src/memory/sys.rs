//! Two calls of glibc's malloc.

/// How many heaps all threads share.
#[cfg(target_env = "gnu")]
const HEAPS: libc::c_int = 2;

#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "there is no safe binding")]
pub(super) fn share_heaps() {
    // SAFETY: mallopt(3) takes two integers and touches malloc's parameters only, under its lock.
    let _refused = unsafe { libc::mallopt(libc::M_ARENA_MAX, HEAPS) };
}

/// Gives the kernel the pages that are free in all heaps.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code, reason = "there is no safe binding")]
pub(super) fn trim() {
    // SAFETY: malloc_trim(3) is thread-safe and takes what is free only; no live block moves.
    let _nothing_to_give = unsafe { libc::malloc_trim(0) };
}

/// Another allocator has no such switch.
#[cfg(not(target_env = "gnu"))]
pub(super) fn share_heaps() {}

/// Another allocator decides by itself.
#[cfg(not(target_env = "gnu"))]
pub(super) fn trim() {}
