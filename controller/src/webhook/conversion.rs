//! `POST /convert`: BGPPeers between their versions.

use kube::core::conversion::{ConversionRequest, ConversionResponse, ConversionReview};
use kube::core::response::{Status, reason};
use patina_crds::convert::convert;

use super::metrics::Outcome;

/// The answer to a ConversionReview: all its objects, or the reason why not.
///
/// # Errors
/// The text is no ConversionReview.
pub(crate) fn answer(body: &[u8]) -> Result<(ConversionReview, Outcome), String> {
    let review: ConversionReview =
        serde_json::from_slice(body).map_err(|error| format!("not a ConversionReview of v1: {error}"))?;
    let request = ConversionRequest::from_review(review)
        .map_err(|_| "a ConversionReview without a request".to_owned())?;
    let desired = request.desired_api_version.clone();
    let converted: Result<Vec<_>, String> = request
        .objects
        .iter()
        .map(|object| convert(object, &desired).map_err(|e| format!("{}{e}", named(object))))
        .collect();
    let response = ConversionResponse::for_request(request);
    Ok(match converted {
        Ok(objects) => (response.success(objects).into_review(), Outcome::Converted),
        Err(why) => {
            tracing::warn!("a BGPPeer cannot be converted: {why}");
            (response.failure(Status::failure(&why, reason::INVALID)).into_review(), Outcome::Failed)
        }
    })
}

fn named(object: &serde_json::Value) -> String {
    let part =
        |key: &str| object.pointer(&format!("/metadata/{key}")).and_then(|v| v.as_str()).unwrap_or_default();
    format!("{}/{}: ", part("namespace"), part("name"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn ask(objects: Value) -> Value {
        let review = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "ConversionReview",
            "request": {"uid": "u", "desiredAPIVersion": "metallb.io/v1beta1", "objects": objects},
        });
        serde_json::to_value(answer(review.to_string().as_bytes()).unwrap().0).unwrap()
    }

    fn peer(name: &str, version: &str) -> Value {
        json!({
            "apiVersion": format!("metallb.io/{version}"), "kind": "BGPPeer",
            "metadata": {"name": name, "namespace": "metallb-system"},
            "spec": {"myASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.1", "vrf": "red"},
        })
    }

    #[test]
    fn all_objects_are_converted_in_their_order() {
        let answer = ask(json!([peer("a", "v1beta2"), peer("b", "v1beta2")]));
        assert_eq!((&answer["kind"], &answer["response"]["uid"]), (&json!("ConversionReview"), &json!("u")));
        assert_eq!(answer["response"]["result"]["status"], "Success");
        let objects = answer["response"]["convertedObjects"].as_array().unwrap();
        let names: Vec<&Value> = objects.iter().map(|object| &object["metadata"]["name"]).collect();
        assert_eq!(names, ["a", "b"]);
        assert!(
            objects.iter().all(|o| o["apiVersion"] == "metallb.io/v1beta1" && o["spec"].get("vrf").is_none())
        );
    }

    #[test]
    fn one_that_cannot_be_is_named_and_nothing_is_answered_by_halves() {
        let answer = ask(json!([peer("a", "v1beta2"), peer("b", "v9")]));
        let response = &answer["response"];
        assert_eq!(
            (&response["result"]["status"], &response["convertedObjects"]),
            (&json!("Failure"), &json!([]))
        );
        let message = response["result"]["message"].as_str().unwrap();
        assert!(message.contains("metallb-system/b") && message.contains("v9"), "{message}");
    }

    #[test]
    fn what_is_no_review_is_refused() {
        for body in [&b""[..], b"{}", b"[1]", br#"{"apiVersion":"a","kind":"b"}"#] {
            assert!(answer(body).is_err());
        }
    }
}
