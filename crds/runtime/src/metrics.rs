//! Metrics that both daemons have, with MetalLB's names.

use prometheus::{IntCounter, IntGauge, Registry};

/// Prefix of MetalLB's metrics about the API client and the configuration.
const PREFIX: &str = "metallb_k8s_client";

/// How the configuration in force came about.
#[derive(Clone, Debug)]
pub struct ConfigMetrics {
    /// 1 once a configuration was loaded.
    pub loaded: IntGauge,
    /// 1 while the newest configuration is refused and an older one is in force.
    pub stale: IntGauge,
    /// Objects whose change was looked at.
    pub updates: IntCounter,
    /// Of these, how many led to an error.
    pub update_errors: IntCounter,
}

impl ConfigMetrics {
    /// Registers the four.
    ///
    /// # Errors
    /// One of the names is taken in `registry`.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let gauge = |name: &str, help: &str| IntGauge::new(format!("{PREFIX}_{name}"), help);
        let counter = |name: &str, help: &str| IntCounter::new(format!("{PREFIX}_{name}"), help);
        let metrics = Self {
            loaded: gauge("config_loaded_bool", "1 if the configuration was loaded at least once")?,
            stale: gauge(
                "config_stale_bool",
                "1 if the newest configuration is refused and an older one is in force",
            )?,
            updates: counter("updates_total", "Number of changes of objects looked at")?,
            update_errors: counter(
                "update_errors_total",
                "Number of changes of objects that led to an error",
            )?,
        };
        registry.register(Box::new(metrics.loaded.clone()))?;
        registry.register(Box::new(metrics.stale.clone()))?;
        registry.register(Box::new(metrics.updates.clone()))?;
        registry.register(Box::new(metrics.update_errors.clone()))?;
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_metallbs() {
        let registry = Registry::new();
        ConfigMetrics::register(&registry).unwrap().stale.set(1);
        let names: Vec<_> = registry.gather().iter().map(|family| family.name().to_owned()).collect();
        assert_eq!(
            names,
            [
                "metallb_k8s_client_config_loaded_bool",
                "metallb_k8s_client_config_stale_bool",
                "metallb_k8s_client_update_errors_total",
                "metallb_k8s_client_updates_total",
            ]
        );
    }
}
