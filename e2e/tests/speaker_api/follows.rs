//! The announcer follows the cluster: speakers, nodes, endpoints, advertisements.

use crate::world::{NAMESPACE, VIP, VIP6, World};

fn other(node: &str) -> &'static str {
    if node == "a" { "b" } else { "a" }
}

#[tokio::test]
async fn the_announcer_moves_with_speakers_and_nodes() {
    let world = World::new().await;
    world.service("", &[VIP, VIP6], "a:ready b:ready").await;

    // One node answers for both families, and says so everywhere.
    let first = world.leader(VIP).await;
    let second = other(first);
    world.until_answered_by(VIP6, Some(first)).await;
    let status = world.until_status_of(Some(first)).await.unwrap();
    assert_eq!(status["status"]["serviceName"], "web");
    assert_eq!(status["status"]["serviceNamespace"], "default");
    assert_eq!(status["status"]["interfaces"], serde_json::json!([]), "no list means all");
    assert_eq!(status["metadata"]["labels"]["metallb.io/node"], first);
    assert_eq!(status["metadata"]["labels"]["metallb.io/service-name"], "web");
    assert_eq!(status["metadata"]["labels"]["metallb.io/service-namespace"], "default");
    assert_eq!(status["metadata"]["ownerReferences"][0]["name"], format!("speaker-{first}"));
    assert!(status["metadata"]["name"].as_str().unwrap().starts_with("l2-"));
    world
        .until_event("nodeAssigned", &format!("announcing from node \"{first}\" with protocol \"layer2\""))
        .await;
    let series = |node: &str| {
        format!(
            r#"metallb_speaker_announced{{ip="{VIP}",node="{node}",protocol="layer2",service="default/web"}} 1"#
        )
    };
    assert!(world.metrics(first).contains(&series(first)));
    assert!(!world.metrics(second).contains("metallb_speaker_announced{"));

    // Its Pod is no longer ready.
    world.set_ready(first, false).await;
    world.until_answered_by(VIP, Some(second)).await;
    world.until_answered_by(VIP6, Some(second)).await;
    world.until_status_of(Some(second)).await;
    world
        .until_event("nodeAssigned", &format!("taken over from node \"{first}\", which has no live speaker"))
        .await;
    assert!(
        !world.metrics(first).contains("metallb_speaker_announced{"),
        "the series ends with the announcement"
    );
    world.set_ready(first, true).await;
    world.until_answered_by(VIP, Some(first)).await;
    world.until_status_of(Some(first)).await;
    assert_eq!(world.events("nodeAssigned").await.len(), 3, "one per move, however often it is looked at");

    // The exclude label, whatever its value.
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    world.kubectl(&["label", "node", first, &format!("{label}=")]).await;
    world.until_answered_by(VIP, Some(second)).await;
    world.kubectl(&["label", "node", first, &format!("{label}-")]).await;
    world.until_answered_by(VIP, Some(first)).await;

    // The network of the node is not available.
    let condition = |status: &str| {
        format!(r#"{{"status":{{"conditions":[{{"type":"NetworkUnavailable","status":"{status}"}}]}}}}"#)
    };
    world.set_status(&["node", first], &condition("True")).await;
    world.until_answered_by(VIP, Some(second)).await;
    world.set_status(&["node", first], &condition("False")).await;
    world.until_answered_by(VIP, Some(first)).await;
}

#[tokio::test]
async fn endpoints_and_advertisements_say_where_it_may_be() {
    let world = World::new().await;
    world.service("  externalTrafficPolicy: Local", &[VIP], "b:ready").await;
    world.until_answered_by(VIP, Some("b")).await;
    world.endpoints("a:ready b:gone").await;
    world.until_answered_by(VIP, Some("a")).await;
    world.endpoints("a:serving").await;
    world.until_answered_by(VIP, Some("a")).await;
    world.endpoints("a:gone b:gone").await;
    world.until_answered_by(VIP, None).await;
    world.until_status_of(None).await;

    // Cluster: any node, as long as somebody can take it.
    world.service("  externalTrafficPolicy: Cluster", &[VIP], "a:ready").await;
    world.leader(VIP).await;
    for (rack, node) in [("left", "a"), ("right", "b")] {
        advertise(&world, &format!("nodeSelectors: [{{matchLabels: {{rack: {rack}}}}}]")).await;
        world.until_answered_by(VIP, Some(node)).await;
    }

    // Interfaces by name: one that exists, and one that does not.
    advertise(&world, "interfaces: [eth0]").await;
    let leader = world.leader(VIP).await;
    world
        .until("the status lists the interface", || async {
            let statuses = world.statuses().await;
            let eth0 = serde_json::json!([{ "name": "eth0" }]);
            let listed = statuses.len() == 1 && statuses[0]["status"]["interfaces"] == eth0;
            Ok(patina_e2e::wait::Seen::when(listed, statuses))
        })
        .await;
    advertise(&world, "interfaces: [eth9]").await;
    world.until_answered_by(VIP, None).await;
    world
        .until_event(
            "announceFailed",
            &format!("cannot announce {VIP}: this node leads, but has no interface eth9"),
        )
        .await;
    world.until_status_of(None).await;
    world.nodes[leader].ip(&["link", "set", "eth0", "down"]).unwrap();
    world.nodes[leader].ip(&["link", "set", "eth0", "name", "eth9", "up"]).unwrap();
    world
        .until("the renamed interface answers", || async {
            let said =
                world.lan.exec("arping", &["-r", "-C", "1", "-c", "1", "-w", "1", "-i", "br0", VIP])?;
            Ok(patina_e2e::wait::Seen::when(!said.is_empty(), said))
        })
        .await;

    // No advertisement at all.
    world.kubectl(&["delete", "l2advertisement", "all", "-n", NAMESPACE]).await;
    world.until_answered_by(VIP, None).await;
}

async fn advertise(world: &World, spec: &str) {
    let yaml = format!(
        "apiVersion: metallb.io/v1beta1\nkind: L2Advertisement\nmetadata: {{name: all, namespace: {NAMESPACE}}}\n\
         spec: {{{spec}}}\n"
    );
    world.apply(&yaml).await;
}
