//! What the watches keep of each Kubernetes object. The objects themselves are dropped as they arrive.

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
    pub(super) uid: Arc<str>,
}

impl ServiceRow {
    pub(super) fn of(service: &Service, words: &mut Words) -> Self {
        let uid = service.metadata.uid.as_deref().unwrap_or_default();
        Self { facts: Arc::new(convert::facts(service, words)), uid: Arc::from(uid) }
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
    name: Box<str>,
    /// Name of the Service; empty when it belongs to none.
    pub(super) service: Box<str>,
    /// Its distinct endpoints.
    pub(super) endpoints: Arc<[EndpointView]>,
}

impl SliceRow {
    pub(super) fn of(slice: &EndpointSlice, words: &mut Words) -> Self {
        let endpoints = convert::slice_endpoints(slice, words);
        Self(Arc::new(Slice {
            namespace: words.text(slice.metadata.namespace.as_deref().unwrap_or_default()),
            name: slice.name_any().into(),
            service: convert::slice_service(slice).unwrap_or_default().into(),
            endpoints: words.endpoints(endpoints),
        }))
    }

    pub(super) fn slice(&self) -> &Slice {
        &self.0
    }
}

impl Row for SliceRow {
    fn key(&self) -> (&str, &str) {
        (&self.0.namespace, &self.0.name)
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
