//! Whether a frame may be sent, now.
//!
//! A process that was stopped wakes with a lease that has run out, so what waits in its sockets finds the fence closed. Should the
//! others let it back in before the other threads have run, those frames would find it open, and duties that may be
//! another's by now. So a frame goes out only if the fence has not been opened since the queues were last emptied, nor since the
//! duties were decided. What is left is a process that is stopped between the question and the system call behind it: that
//! one frame goes out late, and no program can prevent it.

use std::time::Instant;

use crate::fence::Fence;

/// The fence, as the wire asks it.
#[derive(Debug)]
pub(super) struct Gate {
    fence: Fence,
    /// [`Fence::openings`] when the queues were last emptied.
    emptied: u64,
    /// The same when the duties were decided.
    decided: u64,
}

impl Gate {
    pub(super) fn new(fence: Fence) -> Self {
        Self { emptied: fence.openings(), fence, decided: 0 }
    }

    /// To be asked right before a frame is sent and nowhere earlier: the process may be stopped anywhere.
    pub(super) fn permits(&self) -> bool {
        self.emptied == self.decided && self.fence.permits_since(self.decided, Instant::now())
    }

    /// Whether frames may wait since before the fence was last opened. Their askers have had their answer from somebody
    /// else meanwhile, or will ask again.
    pub(super) fn is_late(&self) -> bool {
        self.fence.openings() != self.emptied
    }

    /// To be asked before the queues are emptied, for [`Gate::emptied`].
    pub(super) fn opening(&self) -> u64 {
        self.fence.openings()
    }

    /// Nothing waits any more that came before this opening.
    pub(super) fn emptied(&mut self, opening: u64) {
        self.emptied = opening;
    }

    /// The duties are no older than this opening.
    pub(super) fn decided(&mut self, opening: u64) {
        self.decided = opening;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn after_an_opening_nothing_passes_until_the_queues_are_empty_and_the_duties_new() {
        let fence = Fence::closed();
        let mut gate = Gate::new(fence.clone());
        let open = || fence.set(Some(Instant::now() + Duration::from_secs(3600)));
        open();
        assert!(!gate.permits() && gate.is_late());
        gate.decided(1);
        assert!(!gate.permits(), "old frames may wait");
        gate.emptied(gate.opening());
        assert!(gate.permits() && !gate.is_late());
        fence.set(None);
        assert!(!gate.permits());
        open();
        gate.emptied(gate.opening());
        assert!(!gate.permits(), "the duties are those from before");
        gate.decided(2);
        assert!(gate.permits());
    }

    #[test]
    fn without_a_membership_there_is_no_fence() {
        assert!(Gate::new(Fence::open()).permits());
    }
}
