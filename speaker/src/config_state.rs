//! What this speaker's ConfigurationState says: what it thinks of the configuration, and, in an annotation for the
//! controller, which addresses the node's networks use themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use patina_crds::keys;
use patina_crds::net::Family;
use patina_crds::networks::Networks;
use patina_runtime::config_state::{Component, Report, Verdict};
use patina_runtime::config_watch::{ConfigKeeper, ConfigWatch};
use patina_speaker_core::view::InterfaceView;

use crate::settings::Settings;

/// The object of the speaker of this node.
#[must_use]
pub fn component(settings: &Settings) -> Component {
    Component {
        kind: "speaker",
        node: Some(settings.node_name.clone()),
        condition: "configReconcilerValid",
        namespace: settings.common.namespace.clone(),
        pod_name: settings.common.pod_name.clone(),
    }
}

/// What the object shall say. `interfaces`: those that are not excluded; `gateways`: next hops by interface index.
#[must_use]
pub fn report(
    keeper: &ConfigKeeper,
    watch: &ConfigWatch,
    interfaces: &[InterfaceView],
    gateways: &BTreeSet<(u32, IpAddr)>,
) -> Report {
    let networks = networks(interfaces, gateways).to_text();
    Report {
        verdict: Verdict::of(keeper, watch),
        annotations: BTreeMap::from([(keys::NETWORKS.to_owned(), networks)]),
    }
}

/// A single address (/32, /128) is in no subnet here, and it is how virtual addresses look (kube-proxy's, keepalived's):
/// those are not the node's own.
fn networks(interfaces: &[InterfaceView], gateways: &BTreeSet<(u32, IpAddr)>) -> Networks {
    let addresses = interfaces.iter().flat_map(|interface| &interface.addresses);
    let behind = |index: u32| interfaces.iter().any(|interface| interface.index == index);
    Networks {
        addresses: addresses.filter(|(ip, prefix)| *prefix < Family::of(*ip).bits()).copied().collect(),
        gateways: gateways.iter().filter(|(index, _)| behind(*index)).map(|(_, ip)| *ip).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_subnets_and_gateways_behind_our_interfaces_are_told() {
        let address = |text: &str, prefix| (text.parse::<IpAddr>().unwrap(), prefix);
        let eth0 = InterfaceView {
            index: 2,
            addresses: [
                address("192.0.2.11", 24),
                address("192.0.2.100", 32),
                address("2001:db8::b", 64),
                address("2001:db8::100", 128),
                address("fe80::b", 64),
            ]
            .into(),
            ..InterfaceView::default()
        };
        let hop = |index, text: &str| (index, text.parse().unwrap());
        let gateways = [hop(2, "192.0.2.1"), hop(2, "fe80::1"), hop(7, "10.0.0.1")].into();
        assert_eq!(
            networks(&[eth0], &gateways).to_text(),
            r#"{"addresses":["192.0.2.11/24","2001:db8::b/64"],"gateways":["192.0.2.1"]}"#
        );
    }
}
