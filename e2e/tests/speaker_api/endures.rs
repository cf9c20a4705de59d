//! What the speaker keeps doing when the world around it fails, and how it goes.

use patina_e2e::wait::{self, Seen, secs};

use crate::world::{NAMESPACE, VIP, World};

const OVERLAPPING: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: overlapping, namespace: metallb-system}
spec: {addresses: [172.25.7.90-172.25.7.110]}
";

#[tokio::test]
async fn bad_configuration_and_a_dead_api_server_change_nothing() {
    let mut world = World::new().await;
    world.service("", &[VIP], "a:ready").await;
    let leader = world.leader(VIP).await;

    // Two pools overlap: the last good configuration stays in force, and a metric says so.
    world.apply(OVERLAPPING).await;
    world
        .until("the configuration is refused", || async {
            let metrics = world.metrics(leader);
            Ok(Seen::when(metrics.contains("metallb_k8s_client_config_stale_bool 1"), metrics))
        })
        .await;
    assert_eq!(world.who(VIP), Some(leader));
    world.kubectl(&["delete", "ipaddresspool", "overlapping", "-n", NAMESPACE]).await;
    world
        .until("the configuration is good again", || async {
            let metrics = world.metrics(leader);
            Ok(Seen::when(metrics.contains("metallb_k8s_client_config_stale_bool 0"), metrics))
        })
        .await;

    // No API server: answers go on, and so does what needs only this node.
    world.plane.stop_apiserver();
    wait::holds("the address is answered without an API server", secs(2), || async {
        Ok(Seen::when(world.who(VIP) == Some(leader), ()))
    })
    .await
    .unwrap();
    let eth0 = ["link", "set", "eth0"];
    world.nodes[leader].ip(&[&eth0[..], &["address", "02:00:00:00:00:42"]].concat()).unwrap();
    world.nodes[leader].ip(&[&eth0[..], &["down"]].concat()).unwrap();
    assert_eq!(world.who(VIP), None);
    world.nodes[leader].ip(&[&eth0[..], &["up"]].concat()).unwrap();
    world.until_answered_by(VIP, Some(leader)).await;
    world.plane.start_apiserver().await.unwrap();

    // Back again: the next change counts.
    world.kubectl(&["delete", "service", "web"]).await;
    world.until_answered_by(VIP, None).await;
    world.until_status_of(None).await;
}

#[tokio::test]
async fn nothing_is_announced_before_a_configuration_was_loaded() {
    let mut world = World::new().await;
    for node in ["a", "b"] {
        world.speakers.remove(node);
    }
    world.apply(OVERLAPPING).await;
    world.service("", &[VIP], "a:ready").await;
    for node in ["a", "b"] {
        world.start_speaker(node).await;
        let metrics = world.metrics(node);
        assert!(metrics.contains("metallb_k8s_client_config_loaded_bool 0"), "{metrics}");
    }
    assert_eq!(world.who(VIP), None);
    world.kubectl(&["delete", "ipaddresspool", "overlapping", "-n", NAMESPACE]).await;
    world.leader(VIP).await;
}

#[tokio::test]
async fn a_speaker_that_is_told_to_go_hands_over_first() {
    let mut world = World::new().await;
    world.service("", &[VIP], "a:ready b:ready").await;
    let leader = world.leader(VIP).await;
    let second = if leader == "a" { "b" } else { "a" };
    world.until_status_of(Some(leader)).await;

    // As in a rolling update: the Pod is marked, then the process gets its signal. Somebody answers all the time.
    let asking = world.lan.clone();
    let asked = std::thread::spawn(move || {
        asking
            .exec("arping", &["-c", "40", "-W", "0.05", "-i", "br0", VIP])
            .unwrap_or_else(|said| format!("{said:#}"))
    });
    world.kubectl(&["delete", "pod", &format!("speaker-{leader}"), "-n", NAMESPACE, "--wait=false"]).await;
    let mut speaker = world.speakers.remove(leader).unwrap();
    assert!(speaker.terminate(secs(3)), "it did not end in time: {}", speaker.log_tail(20));
    world.until_answered_by(VIP, Some(second)).await;
    world.until_status_of(Some(second)).await;
    let said = asked.join().unwrap();
    assert!(said.contains(" 0% unanswered"), "{said}");
}
