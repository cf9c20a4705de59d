//! Those that went down and did not come back: the most recent hundred.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::Down;

const MOST: usize = 100;

/// In the order in which they fell.
#[derive(Debug, Default)]
pub(super) struct Fallen {
    order: VecDeque<String>,
    causes: Arc<BTreeMap<String, Down>>,
}

impl Fallen {
    /// By node, each with its last cause.
    pub(super) fn causes(&self) -> Arc<BTreeMap<String, Down>> {
        Arc::clone(&self.causes)
    }

    pub(super) fn fell(&mut self, node: &str, cause: Down) {
        self.forget(node);
        let causes = Arc::make_mut(&mut self.causes);
        if self.order.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            causes.remove(&oldest);
        }
        self.order.push_back(node.to_owned());
        causes.insert(node.to_owned(), cause);
    }

    /// It is back, or nobody expects it any more.
    pub(super) fn forget(&mut self, node: &str) {
        if self.causes.contains_key(node) {
            self.order.retain(|other| other != node);
            Arc::make_mut(&mut self.causes).remove(node);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_makes_room_whatever_its_name() {
        let mut fallen = Fallen::default();
        for number in (0..MOST).rev() {
            fallen.fell(&format!("node-{number:03}"), Down::Left);
        }
        // It comes back and falls again: now it is the latest.
        fallen.forget("node-099");
        fallen.fell("node-099", Down::default());
        let before = fallen.causes();
        fallen.fell("a", Down::Left);
        let after = fallen.causes();
        assert_eq!((before.len(), after.len()), (MOST, MOST));
        assert!(before.contains_key("node-098") && !after.contains_key("node-098"));
        assert_eq!(after.get("node-099"), Some(&Down::default()));
        assert!(after.contains_key("a") && after.contains_key("node-000"));
    }
}
