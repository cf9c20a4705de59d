//! Texts and lists of which thousands of objects say the same, kept once.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use patina_crds::selector::Labels;
use patina_speaker_core::view::{EndpointView, SharedLabels};

/// Names of nodes and namespaces, keys and values of labels, lists of endpoints.
#[derive(Debug, Default)]
pub struct Words {
    texts: Shared<str>,
    endpoints: Shared<[EndpointView]>,
    lists: Shared<[Arc<str>]>,
}

impl Words {
    /// The one copy of this text.
    pub fn text(&mut self, text: &str) -> Arc<str> {
        self.texts.get(text, |text| Arc::from(text))
    }

    /// The one copy of a list of these texts, as they are.
    pub fn list<'a>(&mut self, texts: impl Iterator<Item = &'a str>) -> Arc<[Arc<str>]> {
        let list: Vec<_> = texts.map(|text| self.text(text)).collect();
        self.lists.get(&list, |list| Arc::from(list))
    }

    /// The one copy of this list, without repetitions and in order: how many endpoints there are of a kind matters to
    /// nobody, so that a Service with a thousand pods costs no more than its nodes.
    pub fn endpoints(&mut self, mut endpoints: Vec<EndpointView>) -> Arc<[EndpointView]> {
        endpoints.sort_unstable();
        endpoints.dedup();
        self.endpoints.get(&endpoints, |endpoints| Arc::from(endpoints))
    }

    /// Labels made of shared texts.
    pub fn labels(&mut self, labels: &Labels) -> SharedLabels {
        labels.iter().map(|(key, value)| (self.text(key), self.text(value))).collect()
    }
}

/// What is handed out, and found again as long as somebody else holds it.
#[derive(Debug)]
struct Shared<T: ?Sized> {
    known: HashSet<Arc<T>>,
    /// When it has grown to this, what nobody holds any more is let go.
    sweep_at: usize,
}

/// Not worth a sweep.
const FEW: usize = 64;

impl<T: ?Sized> Default for Shared<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), sweep_at: FEW }
    }
}

impl<T: ?Sized + Eq + Hash> Shared<T> {
    fn get(&mut self, value: &T, make: impl FnOnce(&T) -> Arc<T>) -> Arc<T> {
        if let Some(known) = self.known.get(value) {
            return Arc::clone(known);
        }
        if self.known.len() >= self.sweep_at {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.known.shrink_to_fit();
            self.sweep_at = (self.known.len() * 2).max(FEW);
        }
        let made = make(value);
        self.known.insert(Arc::clone(&made));
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn on(node: &str) -> EndpointView {
        EndpointView { node: Some(node.into()), usable: true }
    }

    #[test]
    fn equal_values_are_one_and_forgotten_ones_are_swept() {
        let mut words = Words::default();
        let (a, b) = (words.text("node-1"), words.text("node-1"));
        assert!(Arc::ptr_eq(&a, &b));
        let one = words.endpoints(vec![on("b"), on("a"), on("b")]);
        assert!(Arc::ptr_eq(&one, &words.endpoints(vec![on("a"), on("b")])));
        assert_eq!(one.len(), 2);
        for n in 0..10 * FEW {
            words.text(&format!("gone-{n}"));
        }
        assert!(words.texts.known.len() <= 2 * FEW, "{}", words.texts.known.len());
        assert!(Arc::ptr_eq(&a, &words.text("node-1")), "what is held stays");
    }
}
