//! An allocator that counts what the program under test holds.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// What the scenery (the API server) holds is not counted.
    static SCENERY: Cell<bool> = const { Cell::new(false) };
}

/// Nothing that this thread does counts from now on. It must give nothing to threads that count.
pub(crate) fn this_thread_is_scenery() {
    SCENERY.set(true);
}

/// Bytes held now, with what glibc's malloc adds to each block.
pub(crate) fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// The most that was held since the last call.
pub(crate) fn take_peak() -> usize {
    PEAK.swap(live(), Ordering::Relaxed)
}

pub(crate) struct Counting;

/// A block of glibc's malloc: 8 bytes more, in steps of 16, at least 32.
fn block(layout: Layout) -> usize {
    (layout.size() + 8).next_multiple_of(16).max(32)
}

fn counts() -> bool {
    SCENERY.try_with(|scenery| !scenery.get()).unwrap_or(false)
}

// SAFETY: every call is handed to the system's allocator as it is; the counters beside it allocate nothing (the thread
// local is const and has no destructor).
#[allow(unsafe_code, reason = "a global allocator is an unsafe trait")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if counts() {
            let live = LIVE.fetch_add(block(layout), Ordering::Relaxed) + block(layout);
            PEAK.fetch_max(live, Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if counts() {
            LIVE.fetch_sub(block(layout), Ordering::Relaxed);
        }
        // SAFETY: the caller's promises are the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}
