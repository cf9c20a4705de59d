//! Kubernetes' own objects out of manifests.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Namespace, Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use patina_crds::config::manifest::Other;
use patina_crds::types::ConfigurationState;
use serde::de::DeserializeOwned;

use super::{Problem, Source};

/// What was found, each list in the order of the documents.
#[derive(Debug, Default)]
pub(super) struct Objects {
    /// Of type LoadBalancer.
    pub(super) services: Vec<Service>,
    pub(super) slices: Vec<EndpointSlice>,
    pub(super) nodes: Vec<Node>,
    pub(super) namespaces: Vec<Namespace>,
    pub(super) service_cidrs: Vec<ServiceCIDR>,
    /// What speakers say of their nodes' networks.
    pub(super) states: Vec<ConfigurationState>,
    pub(super) errors: Vec<Problem>,
    /// Kind, namespace and name of all of them.
    names: BTreeSet<(String, String, String)>,
}

/// Kinds that are read, with their groups and the versions that are understood.
const KINDS: [(&str, &str, &[&str]); 5] = [
    ("Service", "", &["v1"]),
    ("Node", "", &["v1"]),
    ("Namespace", "", &["v1"]),
    ("EndpointSlice", "discovery.k8s.io", &["v1"]),
    // One shape in all of them.
    ("ServiceCIDR", "networking.k8s.io", &["v1", "v1beta1", "v1alpha1"]),
];

impl Objects {
    /// Takes an object if it is of a kind that matters. `namespace`: of Services and EndpointSlices that name none.
    pub(super) fn add(&mut self, mut other: Other, source: &Source, namespace: &str) {
        let kind = other.object.kind.clone();
        if matches!(kind.as_str(), "Service" | "EndpointSlice") && other.object.namespace.is_empty() {
            namespace.clone_into(&mut other.object.namespace);
        }
        if kind == "ConfigurationState" && other.api_version.is_empty() {
            let state = self.decode(other, source);
            self.states.extend(state);
            return;
        }
        let (group, version) = other.api_version.split_once('/').unwrap_or(("", &other.api_version));
        let Some((_, _, versions)) = KINDS.iter().find(|(known, of, _)| *known == kind && *of == group)
        else {
            return;
        };
        if !versions.contains(&version) {
            let slash = if group.is_empty() { "" } else { "/" };
            let message = format!(
                "{:?} is no version of {kind} that is read; allowed is {group}{slash}{}",
                other.api_version,
                versions.first().unwrap_or(&"v1")
            );
            self.error(&other, source, "apiVersion", message);
            return;
        }
        match kind.as_str() {
            "Service" => self.service(other, source),
            "EndpointSlice" => {
                let namespace = other.object.namespace.clone();
                if let Some(mut slice) = self.decode::<EndpointSlice>(other, source) {
                    slice.metadata.namespace = Some(namespace);
                    self.slices.push(slice);
                }
            }
            "Node" => {
                let node = self.decode(other, source);
                self.nodes.extend(node);
            }
            "Namespace" => {
                let namespace = self.decode(other, source);
                self.namespaces.extend(namespace);
            }
            _ => {
                let cidr = self.decode(other, source);
                self.service_cidrs.extend(cidr);
            }
        }
    }

    fn service(&mut self, other: Other, source: &Source) {
        let namespace = other.object.namespace.clone();
        let Some(mut service) = self.decode::<Service>(other, source) else { return };
        service.metadata.namespace = Some(namespace);
        let type_ = service.spec.as_ref().and_then(|spec| spec.type_.as_deref());
        if type_ == Some("LoadBalancer") {
            self.services.push(service);
        }
    }

    fn decode<T: DeserializeOwned>(&mut self, other: Other, source: &Source) -> Option<T> {
        let object = &other.object;
        let named = other.value.pointer("/metadata/name").and_then(|name| name.as_str());
        if named.is_none_or(str::is_empty) {
            self.error(&other, source, "metadata.name", "the field is missing; it is needed".to_owned());
            return None;
        }
        let name = (object.kind.clone(), object.namespace.clone(), object.name.clone());
        if !self.names.insert(name) {
            let message =
                format!("there is another {} of this name before it; names must be unique", object.kind);
            self.error(&other, source, "metadata.name", message);
            return None;
        }
        match serde_path_to_error::deserialize(&other.value) {
            Ok(object) => Some(object),
            Err(error) => {
                let path = error.path().to_string();
                let field = if path == "." { String::new() } else { path };
                self.error(&other, source, &field, format!("cannot be read: {}", error.inner()));
                None
            }
        }
    }

    fn error(&mut self, other: &Other, source: &Source, field: &str, message: String) {
        let object = &other.object;
        self.errors.push(Problem {
            kind: object.kind.clone(),
            namespace: object.namespace.clone(),
            name: object.name.clone(),
            field: field.to_owned(),
            message,
            file: Some(source.name.clone()),
        });
    }
}
