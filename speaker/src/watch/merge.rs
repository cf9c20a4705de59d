//! Services and the endpoints of their slices, put together.

use std::cmp::Ordering;
use std::iter::Peekable;
use std::sync::Arc;

use patina_speaker_core::view::{EndpointView, ServiceId, ServiceView};

use super::rows::{ServiceRow, Slice, SliceRow};
use super::words::Words;

/// The views of these Services, in the order of their ids, as the rows are. Where nothing changed, a view is the pointers
/// that it was.
pub(super) fn views(services: &[ServiceRow], slices: &[SliceRow], words: &mut Words) -> Vec<ServiceView> {
    // Slices come by their own names; here they are needed by the Services'.
    let mut slices: Vec<&Slice> = slices.iter().map(SliceRow::slice).collect();
    slices.sort_by(|a, b| owner(a).cmp(&owner(b)));
    let mut slices = slices.into_iter().peekable();
    let view = |row: &ServiceRow| ServiceView {
        facts: Arc::clone(&row.facts),
        endpoints: endpoints_of(&row.facts.id, &mut slices, words),
    };
    services.iter().map(view).collect()
}

fn owner(slice: &Slice) -> (&str, &str) {
    (&slice.namespace, slice.service())
}

/// Takes the slices up to and with those of this Service.
fn endpoints_of<'a>(
    id: &ServiceId,
    slices: &mut Peekable<impl Iterator<Item = &'a Slice>>,
    words: &mut Words,
) -> Arc<[EndpointView]> {
    let mut found: Option<Arc<[EndpointView]>> = None;
    while let Some(slice) = slices.peek() {
        match owner(slice).cmp(&(&id.namespace, &id.name)) {
            Ordering::Less => {}
            Ordering::Equal => {
                found = Some(match found {
                    None => Arc::clone(&slice.endpoints),
                    Some(before) => {
                        words.endpoints(before.iter().chain(slice.endpoints.iter()).cloned().collect())
                    }
                });
            }
            Ordering::Greater => break,
        }
        slices.next();
    }
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::json;

    use super::*;

    fn service(namespace: &str, name: &str) -> ServiceRow {
        let object: Service = serde_json::from_value(json!({
            "metadata": { "namespace": namespace, "name": name, "uid": "u" },
        }))
        .unwrap();
        ServiceRow::of(&object, &mut Words::default())
    }

    fn slice(words: &mut Words, namespace: &str, name: &str, service: &str, nodes: &[&str]) -> SliceRow {
        let endpoints: Vec<_> =
            nodes.iter().map(|node| json!({ "addresses": ["10.0.0.1"], "nodeName": node })).collect();
        let object: EndpointSlice = serde_json::from_value(json!({
            "metadata": {
                "namespace": namespace, "name": name, "labels": { "kubernetes.io/service-name": service },
            },
            "addressType": "IPv4", "endpoints": endpoints,
        }))
        .unwrap();
        SliceRow::of(&object, words)
    }

    fn shown(view: &ServiceView) -> String {
        let nodes: Vec<_> = view.endpoints.iter().filter_map(|e| e.node.as_deref()).collect();
        format!("{}: {}", view.id, nodes.join(" "))
    }

    #[test]
    fn every_service_gets_the_endpoints_of_all_its_slices_and_of_no_other() {
        let words = &mut Words::default();
        let services = [service("a", "web"), service("a", "web-2"), service("b", "api"), service("b", "web")];
        let slices = [
            // The order of the rows: by namespace and by the slice's own name.
            slice(words, "a", "m", "web", &["n1", "n2"]),
            slice(words, "a", "z", "ghost", &["n9"]),
            slice(words, "b", "a", "web", &["n3", "n3"]),
            slice(words, "b", "b", "", &["n9"]),
            slice(words, "b", "z", "web", &["n1"]),
        ];
        let found = views(&services, &slices, words);
        let text: Vec<_> = found.iter().map(shown).collect();
        assert_eq!(text, ["a/web: n1 n2", "a/web-2: ", "b/api: ", "b/web: n1 n3"]);

        let again = views(&services, &slices, words);
        for (one, two) in found.iter().zip(&again) {
            assert!(Arc::ptr_eq(&one.facts, &two.facts), "{}", one.id);
            assert!(Arc::ptr_eq(&one.endpoints, &two.endpoints), "{}", one.id);
        }
    }
}
