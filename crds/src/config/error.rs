//! What is wrong with a configuration, said so that a person can mend it.

use std::fmt;

/// An object of the configuration, as a person would name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// `IPAddressPool`, `ConfigMap`, ...
    pub kind: String,
    /// Namespace; empty when it is not known (a file without one).
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// One error: where, what was found, what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The object to edit.
    pub object: ObjectRef,
    /// Path of the field in it, as `spec.addresses[1]` or `address-pools[0].protocol`.
    pub field: String,
    /// What was found there and what is allowed, one sentence.
    pub message: String,
    /// True when the remedy is to wait (a Secret or another object not there yet), not to edit.
    pub transient: bool,
    /// The object that is not there, when that is what is wrong; its name is empty when it may be any of its kind.
    pub missing: Option<ObjectRef>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.object, self.field, self.message)
    }
}

/// Every error of one configuration, never empty, in the order of the objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, error) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}
