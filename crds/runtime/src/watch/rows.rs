//! What a watch keeps: one value per object, in the order of namespace and name.
//!
//! A sorted list instead of a map, because the values know their keys: a map of ten thousand objects would keep each
//! name twice. A list from the API server arrives nearly in this order, so that most values are put at the end.

use std::cmp::Ordering;
use std::sync::{Arc, PoisonError, RwLock};

use kube::Resource;

/// A value that is kept of an object. Cloned often: mostly a pointer or two.
pub trait Row: Clone + Send + Sync + 'static {
    /// Namespace (empty: the kind has none) and name of the object that it was made of.
    fn key(&self) -> (&str, &str);

    /// Whether nobody could tell the two apart; then the older one stays and nobody is woken.
    fn same(&self, other: &Self) -> bool;
}

impl<K: Resource + Send + Sync + 'static> Row for Arc<K> {
    fn key(&self) -> (&str, &str) {
        key_of(self.meta())
    }

    fn same(&self, other: &Self) -> bool {
        let (this, other) = (self.meta(), other.meta());
        this.resource_version.is_some()
            && this.resource_version == other.resource_version
            && this.uid == other.uid
    }
}

/// Where the row of an object with this metadata is.
pub(super) fn key_of(meta: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta) -> (&str, &str) {
    (meta.namespace.as_deref().unwrap_or_default(), meta.name.as_deref().unwrap_or_default())
}

/// The rows as everybody sees them.
#[derive(Debug)]
pub(super) struct Rows<V>(RwLock<Vec<V>>);

impl<V> Default for Rows<V> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<V: Row> Rows<V> {
    pub(super) fn read<R>(&self, look: impl FnOnce(&[V]) -> R) -> R {
        look(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn get(&self, key: (&str, &str)) -> Option<V> {
        self.read(|rows| find(rows, key).ok().and_then(|at| rows.get(at).cloned()))
    }

    fn write<R>(&self, change: impl FnOnce(&mut Vec<V>) -> R) -> R {
        change(&mut self.0.write().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The one who changes them. Each verb says whether anything is different now.
#[derive(Debug)]
pub(super) struct RowWriter<V> {
    rows: Arc<Rows<V>>,
    /// A list that is not complete yet. What is in it and was known before is the same value.
    list: Option<List<V>>,
}

#[derive(Debug)]
struct List<V> {
    rows: Vec<V>,
    news: bool,
}

impl<V: Row> RowWriter<V> {
    pub(super) fn new(rows: Arc<Rows<V>>) -> Self {
        Self { rows, list: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.read(<[V]>::is_empty)
    }

    /// A list begins; until it ends, nobody sees it.
    pub(super) fn begin(&mut self) {
        self.list = Some(List { rows: Vec::new(), news: false });
    }

    /// The next of the list.
    pub(super) fn add(&mut self, row: V) {
        let known = self.rows.get(row.key()).filter(|known| known.same(&row));
        let list = self.list.get_or_insert_with(|| List { rows: Vec::new(), news: false });
        list.news |= known.is_none();
        put(&mut list.rows, known.unwrap_or(row));
    }

    /// The list is complete: what it does not have is gone.
    pub(super) fn end(&mut self) -> bool {
        let Some(List { rows: mut new, news }) = self.list.take() else { return false };
        new.shrink_to_fit();
        self.rows.write(|rows| {
            let different = news || rows.len() != new.len();
            *rows = new;
            different
        })
    }

    /// Nothing exists.
    pub(super) fn clear(&mut self) {
        self.list = None;
        self.rows.write(|rows| *rows = Vec::new());
    }

    pub(super) fn set(&mut self, row: V) -> bool {
        self.rows.write(|rows| put(rows, row))
    }

    pub(super) fn remove(&mut self, key: (&str, &str)) -> bool {
        self.rows.write(|rows| match find(rows, key) {
            Ok(at) => {
                rows.remove(at);
                true
            }
            Err(_) => false,
        })
    }
}

/// Puts it where it belongs, unless the same is there.
fn put<V: Row>(rows: &mut Vec<V>, row: V) -> bool {
    let at = match rows.last() {
        Some(last) if last.key() < row.key() => Err(rows.len()),
        _ => find(rows, row.key()),
    };
    match at {
        Ok(at) => match rows.get_mut(at) {
            Some(slot) if !slot.same(&row) => {
                *slot = row;
                true
            }
            _ => false,
        },
        Err(at) => {
            rows.insert(at, row);
            true
        }
    }
}

fn find<V: Row>(rows: &[V], key: (&str, &str)) -> Result<usize, usize> {
    rows.binary_search_by(|row| Ordering::then(row.key().0.cmp(key.0), row.key().1.cmp(key.1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    type Pair = (Arc<str>, u8);

    impl Row for Pair {
        fn key(&self) -> (&str, &str) {
            self.0.split_once('/').unwrap_or(("", &self.0))
        }

        fn same(&self, other: &Self) -> bool {
            self == other
        }
    }

    fn row(key: &str, value: u8) -> Pair {
        (key.into(), value)
    }

    fn shown(writer: &RowWriter<Pair>) -> String {
        writer.rows.read(|rows| rows.iter().map(|(key, value)| format!("{key}={value} ")).collect())
    }

    #[test]
    fn rows_are_in_order_and_only_differences_count() {
        let mut writer = RowWriter::new(Arc::new(Rows::default()));
        assert!(writer.set(row("b/x", 1)) && writer.set(row("a/y", 1)) && writer.set(row("b-c/x", 1)));
        assert!(!writer.set(row("a/y", 1)), "the same");
        assert!(writer.set(row("a/y", 2)));
        assert_eq!(shown(&writer), "a/y=2 b/x=1 b-c/x=1 ", "by namespace, then by name");
        assert!(writer.remove(("b", "x")) && !writer.remove(("b", "x")));
        assert_eq!(writer.rows.get(("a", "y")), Some(row("a/y", 2)));
        assert_eq!(writer.rows.get(("b", "x")), None);
    }

    #[test]
    fn a_new_list_replaces_the_old_at_its_end_and_keeps_equal_values() {
        let mut writer = RowWriter::new(Arc::new(Rows::default()));
        let first = row("a/x", 1);
        for known in [first.clone(), row("a/y", 1), row("a/z", 1)] {
            writer.set(known);
        }
        writer.begin();
        writer.add(row("a/y", 2));
        writer.add(row("a/x", 1));
        assert_eq!(shown(&writer), "a/x=1 a/y=1 a/z=1 ", "not before it is complete");
        assert!(writer.end());
        assert_eq!(shown(&writer), "a/x=1 a/y=2 ");
        let (kept, _) = writer.rows.get(("a", "x")).unwrap();
        assert!(Arc::ptr_eq(&kept, &first.0), "the value that was there");

        writer.begin();
        writer.add(row("a/x", 1));
        writer.begin();
        writer.add(row("a/x", 1));
        writer.add(row("a/y", 2));
        assert!(!writer.end(), "begun anew, and equal to what is there");
        writer.begin();
        assert!(writer.end() && writer.is_empty(), "everything is gone");
    }
}
