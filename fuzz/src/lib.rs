//! What several targets hold.

use patina_crds::config::{self, Resources};

/// Builds the configuration and looks at what comes out: pools that do not overlap, or errors with a place and a sentence.
pub fn build(resources: &Resources) {
    match config::build(resources) {
        Ok(loaded) => {
            let _ = loaded.config.to_string();
            let mut ranges: Vec<_> = loaded.config.pools.values().flat_map(|pool| &pool.ranges).collect();
            ranges.sort();
            for pair in ranges.windows(2) {
                assert!(!pair[0].overlaps(pair[1]), "{} and {} overlap", pair[0], pair[1]);
            }
        }
        Err(errors) => {
            assert!(!errors.0.is_empty());
            for error in &errors.0 {
                assert!(!error.field.is_empty() && !error.message.is_empty(), "{error:?}");
            }
        }
    }
}
