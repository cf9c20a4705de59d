//! What the watches keep of each Kubernetes object. The objects themselves are dropped as they arrive.

use std::fmt;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::ResourceExt as _;
use patina_runtime::watch::Row;
use patina_speaker_core::view::{EndpointView, NodeView, ServiceFacts};

use super::words::Words;
use crate::convert;
use crate::members::SpeakerPod;

/// A Service.
#[derive(Clone, Debug)]
pub(super) struct ServiceRow {
    pub(super) facts: Arc<ServiceFacts>,
    /// `metadata.uid`: events name it.
    pub(super) uid: Uid,
}

/// A uid, which is a UUID in a text of 36 characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Uid {
    Uuid([u8; 16]),
    /// No API server of today's gives such a one.
    Text(Arc<str>),
}

impl Uid {
    fn of(text: &str) -> Self {
        let digits: String = text.chars().filter(|c| *c != '-').collect();
        let number = u128::from_str_radix(&digits, 16).ok();
        let uuid = number.map(|number| Self::Uuid(number.to_be_bytes()));
        uuid.filter(|uuid| uuid.to_string() == text).unwrap_or_else(|| Self::Text(Arc::from(text)))
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Uuid(bytes) => {
                for (place, byte) in bytes.iter().enumerate() {
                    // RFC 9562 4: 8-4-4-4-12 digits.
                    let dash = if matches!(place, 4 | 6 | 8 | 10) { "-" } else { "" };
                    write!(f, "{dash}{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

impl ServiceRow {
    pub(super) fn of(service: &Service, words: &mut Words) -> Self {
        let uid = Uid::of(service.metadata.uid.as_deref().unwrap_or_default());
        Self { facts: Arc::new(convert::facts(service, words)), uid }
    }
}

impl Row for ServiceRow {
    fn key(&self) -> (&str, &str) {
        (&self.facts.id.namespace, &self.facts.id.name)
    }

    fn same(&self, other: &Self) -> bool {
        self.uid == other.uid && self.facts == other.facts
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug)]
pub(super) struct SliceRow(Arc<Slice>);

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Slice {
    pub(super) namespace: Arc<str>,
    /// Its name, and then the name of its Service: nothing, when it belongs to none.
    names: Box<str>,
    /// Where the second begins.
    service_at: usize,
    /// Its distinct endpoints.
    pub(super) endpoints: Arc<[EndpointView]>,
}

impl SliceRow {
    pub(super) fn of(slice: &EndpointSlice, words: &mut Words) -> Self {
        let endpoints = convert::slice_endpoints(slice, words);
        let name = slice.name_any();
        Self(Arc::new(Slice {
            namespace: words.text(slice.metadata.namespace.as_deref().unwrap_or_default()),
            service_at: name.len(),
            names: (name + convert::slice_service(slice).unwrap_or_default()).into(),
            endpoints: words.endpoints(endpoints),
        }))
    }

    pub(super) fn slice(&self) -> &Slice {
        &self.0
    }
}

impl Slice {
    fn name(&self) -> &str {
        self.names.get(..self.service_at).unwrap_or_default()
    }

    /// Name of the Service; empty when it belongs to none.
    pub(super) fn service(&self) -> &str {
        self.names.get(self.service_at..).unwrap_or_default()
    }
}

impl Row for SliceRow {
    fn key(&self) -> (&str, &str) {
        (&self.0.namespace, self.0.name())
    }

    fn same(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

/// A node.
#[derive(Clone, Debug)]
pub(super) struct NodeRow(pub(super) Arc<NodeView>);

impl NodeRow {
    pub(super) fn of(node: &Node) -> Self {
        Self(Arc::new(convert::node(node)))
    }
}

impl Row for NodeRow {
    fn key(&self) -> (&str, &str) {
        ("", &self.0.name)
    }

    fn same(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

/// A speaker's Pod.
#[derive(Clone, Debug)]
pub(super) struct PodRow(pub(super) Arc<SpeakerPod>);

impl PodRow {
    pub(super) fn of(pod: &Pod) -> Self {
        Self(Arc::new(SpeakerPod::of(pod)))
    }
}

impl Row for PodRow {
    fn key(&self) -> (&str, &str) {
        (&self.0.namespace, &self.0.name)
    }

    fn same(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_is_told_as_it_was_given() {
        for text in ["0f0f0f0f-0000-4000-8000-00000000abcd", "0F0F0F0F-0000-4000-8000-00000000ABCD", "x", ""]
        {
            assert_eq!(Uid::of(text).to_string(), text);
        }
        assert!(matches!(Uid::of("0f0f0f0f-0000-4000-8000-00000000abcd"), Uid::Uuid(_)));
    }
}
