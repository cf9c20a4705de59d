//! The ConfigMap as resources: what is valid before is valid afterwards, is read back from the YAML that is written, and
//! means the same.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use patina_crds::config::manifest::{self, Options};
use patina_crds::config::migrate::{find, migrate};
use patina_crds::config::{self, LegacyConfigMap, Resources};

#[path = "../../crds/tests/same/mod.rs"]
mod same;

fuzz_target!(|data: &str| -> Corpus {
    let options = Options::default();
    let _ = find(data, &options);
    let legacy = LegacyConfigMap {
        namespace: options.namespace.clone(),
        name: options.legacy_name.clone(),
        data: Some(data.to_owned()),
    };
    let resources = Resources {
        namespace: options.namespace.clone(),
        legacy: Some(legacy.clone()),
        ..Resources::default()
    };
    let old = config::build(&resources);
    let migrated = match migrate(&legacy) {
        Ok(migrated) => migrated,
        Err(errors) => {
            assert!(!errors.0.is_empty());
            return Corpus::Keep;
        }
    };
    let old = old.expect("what is migrated was valid").config;
    let yaml = migrated.to_yaml().expect("resources are YAML");
    let read = manifest::read(&yaml, &options).unwrap_or_else(|errors| panic!("{errors}\n{yaml}"));
    let new = config::build(&read.resources).unwrap_or_else(|errors| panic!("{errors}\n{yaml}"));
    same::assert_same(&old, &new.config);
    Corpus::Keep
});
