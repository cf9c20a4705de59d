//! Manifests, as `kubectl patina check` gets them: read and built, or refused with errors that say where.
#![no_main]

use libfuzzer_sys::fuzz_target;
use patina_crds::config::manifest::{self, Options};

fuzz_target!(|text: &str| {
    match manifest::read(text, &Options::default()) {
        Ok(manifest) => patina_fuzz::build(&manifest.resources),
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in &errors.0 {
                assert!(error.document > 0 && !error.message.is_empty(), "{error:?}");
            }
        }
    }
});
