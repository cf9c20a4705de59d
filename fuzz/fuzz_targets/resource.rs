//! One custom resource as JSON: what its schema admits decodes into its type, and what decodes is written and read back
//! unchanged. One object that does not decode would blind a whole watch. The first byte chooses the kind; the rest is JSON
//! (or YAML, which is more).
#![no_main]

use std::fmt::Debug;
use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use patina_crds::types::schema::admit;
use patina_crds::types::{self, v1beta1};
use patina_crds::yaml;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

type Decode = fn(&Value) -> Result<(), String>;

/// The types, with the name of their plural and their version.
const TYPES: [(&str, &str, Decode); 11] = [
    ("addressreservations", "v1beta1", decode::<types::AddressReservation>),
    ("bfdprofiles", "v1beta1", decode::<types::BFDProfile>),
    ("bgpadvertisements", "v1beta1", decode::<types::BGPAdvertisement>),
    ("bgppeers", "v1beta2", decode::<types::BGPPeer>),
    ("bgppeers", "v1beta1", decode::<v1beta1::BGPPeer>),
    ("communities", "v1beta1", decode::<types::Community>),
    ("configurationstates", "v1beta1", decode::<types::ConfigurationState>),
    ("ipaddresspools", "v1beta1", decode::<types::IPAddressPool>),
    ("l2advertisements", "v1beta1", decode::<types::L2Advertisement>),
    ("servicebgpstatuses", "v1beta1", decode::<types::ServiceBGPStatus>),
    ("servicel2statuses", "v1beta1", decode::<types::ServiceL2Status>),
];

/// In the order of [`TYPES`].
static SCHEMAS: LazyLock<Vec<Value>> = LazyLock::new(|| {
    let crds = types::crds().expect("the types are JSON");
    TYPES
        .iter()
        .map(|(plural, version, _)| {
            let crd = crds.iter().find(|crd| crd.plural == *plural).expect("a CRD for each type");
            let versions = crd.object["spec"]["versions"].as_array().expect("a list of versions");
            let found = versions.iter().find(|v| v["name"] == **version).expect("the version");
            found["schema"]["openAPIV3Schema"].clone()
        })
        .collect()
});

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some((choice, Ok(text))) = data.split_first().map(|(n, rest)| (n, std::str::from_utf8(rest))) else {
        return Corpus::Reject;
    };
    let choice = usize::from(*choice) % TYPES.len();
    let (name, _, decode) = TYPES[choice];
    if let Ok(value) = serde_json::from_str::<Value>(text) {
        let _ = decode(&value);
    }
    for node in yaml::documents(text).into_iter().flatten() {
        match admit(&SCHEMAS[choice], &node, "") {
            // Nothing at all is no object.
            Ok(Value::Null) => {}
            Ok(mut value) => {
                complete(&mut value, name);
                if let Err(error) = decode(&value) {
                    panic!("the schema of {name} admits {value}, and its type does not: {error}");
                }
            }
            Err(errors) => assert!(!errors.is_empty() && errors.iter().all(|e| !e.message.is_empty())),
        }
    }
    Corpus::Keep
});

/// What the API server adds or has checked before: type and metadata.
fn complete(value: &mut Value, name: &str) {
    if let Some(object) = value.as_object_mut() {
        object.insert("apiVersion".to_owned(), "x/v1".into());
        object.insert("kind".to_owned(), name.into());
        object.insert("metadata".to_owned(), serde_json::json!({"name": "x"}));
    }
}

fn decode<T: DeserializeOwned + Serialize + PartialEq + Debug>(value: &Value) -> Result<(), String> {
    let object: T = serde_json::from_value(value.clone()).map_err(|error| error.to_string())?;
    let written = serde_json::to_value(&object).expect("a resource is JSON");
    let again: T = serde_json::from_value(written).expect("what we write, we read");
    assert_eq!(again, object);
    Ok(())
}
