//! Gives back what large lists leave behind.
//!
//! A list of ten thousand objects passes through the heap page by page, and a first decision about them builds as much
//! again; glibc keeps the pages that this leaves free. Whoever has worked through a lot rings, and a while later, when things
//! are calm, the pages go back to the kernel.

mod sys;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// So many changed objects leave enough behind to be worth a look through the heap.
const MUCH: usize = 500;
/// What comes together is given back together, and not in the middle of a takeover.
const CALM: Duration = Duration::from_secs(5);

/// To be called before the first thread is started.
///
/// By default glibc gives each thread a heap of its own, up to eight per CPU, and what is freed in one is of no use to the
/// others. Two are enough for threads that sleep most of the time.
pub fn share_heaps() {
    sys::share_heaps();
}

/// Counts what passed through the heap. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Churn(Arc<Counter>);

#[derive(Debug, Default)]
struct Counter {
    objects: AtomicUsize,
    enough: Notify,
}

impl Churn {
    /// So many objects came, changed or went.
    pub fn add(&self, objects: usize) {
        if self.0.objects.fetch_add(objects, Ordering::Relaxed) + objects >= MUCH {
            self.0.enough.notify_one();
        }
    }

    /// Gives back, whenever enough has come together. Sleeps otherwise.
    pub async fn give_back(self) {
        loop {
            self.0.enough.notified().await;
            // Calm is when nothing more came for a while.
            loop {
                let before = self.0.objects.load(Ordering::Relaxed);
                tokio::time::sleep(CALM).await;
                if self.0.objects.load(Ordering::Relaxed) == before {
                    break;
                }
            }
            self.0.objects.store(0, Ordering::Relaxed);
            sys::trim();
        }
    }
}
