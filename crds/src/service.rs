//! How everybody names a Service.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

/// Namespace and name of a Service. Ordered by namespace, then name; printed as `namespace/name`. Clones share the text:
/// a dozen tables know each of 10,000 Services by it.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(Arc<Names>);

/// What a [`ServiceId`] says.
#[derive(Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Names {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ServiceId {
    /// The Service `namespace/name`.
    #[must_use]
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self(Arc::new(Names { namespace: namespace.into(), name: name.into() }))
    }
}

impl Deref for ServiceId {
    type Target = Names;

    fn deref(&self) -> &Names {
        &self.0
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceId").field("namespace", &self.namespace).field("name", &self.name).finish()
    }
}
