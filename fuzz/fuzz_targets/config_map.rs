//! The configuration of MetalLB 0.9 to 0.12, as a stranger may write it: read and built, or refused with errors that say
//! where.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patina_crds::config::{LegacyConfigMap, Resources};

fuzz_target!(|data: &str| {
    let legacy = LegacyConfigMap {
        namespace: "metallb-system".to_owned(),
        name: "config".to_owned(),
        data: Some(data.to_owned()),
    };
    patina_fuzz::build(&Resources { legacy: Some(legacy), ..Resources::default() });
});
