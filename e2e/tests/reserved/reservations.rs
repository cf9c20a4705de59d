//! AddressReservation: kept back from everybody, or for a Service that need not exist.

use crate::scene::Scene;
use crate::stage::NAMESPACE;

fn reservation(name: &str, addresses: &str, more: &str) -> String {
    format!(
        "apiVersion: patina.io/v1beta1\nkind: AddressReservation\nmetadata: {{ name: {name}, namespace: {NAMESPACE} }}\n\
         spec: {{ addresses: [{addresses}], {more} }}\n"
    )
}

#[tokio::test]
async fn excluded_addresses_go_to_nobody() {
    let scene = Scene::new(&[]).await;
    let stage = &scene.stage;
    stage.pool("pool", &["10.30.0.1-10.30.0.9"], "").await;
    stage.apply(&reservation("printers", "10.30.0.1-10.30.0.3, 10.30.0.5", "reason: the old printers")).await;
    let _controller = scene.controller("ctl").await;
    for (name, address) in [("one", "10.30.0.4"), ("two", "10.30.0.6")] {
        stage.service(name, "", "").await;
        stage.has(name, &[address], "pool").await;
    }
    stage.service("asks", "", "loadBalancerIP: 10.30.0.2").await;
    let why = stage.waits("asks", "AddressReserved").await;
    assert!(
        why.contains("10.30.0.2") && why.contains("printers") && why.contains("the old printers"),
        "{why}"
    );
    scene.pool_is("pool", 2, 3).await;

    // The printers are gone.
    scene.kubectl(&["delete", "addressreservation", "printers", "-n", NAMESPACE]).await;
    stage.has("asks", &["10.30.0.2"], "pool").await;
    scene.pool_is("pool", 3, 6).await;
}

#[tokio::test]
async fn a_service_that_is_created_again_gets_its_reserved_address() {
    let scene = Scene::new(&[]).await;
    let stage = &scene.stage;
    stage.pool("pool", &["10.30.0.1-10.30.0.9", "fd00:30::1-fd00:30::9"], "").await;
    let mail = "service: { namespace: default, name: mail }, reason: MX records";
    stage.apply(&reservation("mail", "10.30.0.1, 'fd00:30::1'", mail)).await;
    let mut controller = scene.controller("ctl").await;

    stage.service("other", "", "ipFamilyPolicy: RequireDualStack").await;
    stage.has("other", &["10.30.0.2", "fd00:30::2"], "pool").await;
    stage.service("thief", "", "loadBalancerIP: 10.30.0.1").await;
    let why = stage.waits("thief", "AddressReserved").await;
    for word in ["10.30.0.1", "default/mail", "MX records"] {
        assert!(why.contains(word), "{word:?} is not in {why:?}");
    }

    for round in 0..3 {
        stage.service("mail", "", "ipFamilyPolicy: RequireDualStack").await;
        stage.has("mail", &["10.30.0.1", "fd00:30::1"], "pool").await;
        scene.kubectl(&["delete", "service", "mail"]).await;
        if round == 1 {
            // What is kept is in the object, not in anybody's memory.
            controller.process.kill();
            controller = scene.controller("ctl").await;
        }
        let between = format!("between-{round}");
        stage.service(&between, "", "").await;
        stage.has(&between, &[&format!("10.30.0.{}", round + 3)], "pool").await;
    }
}

#[tokio::test]
async fn a_reservation_for_an_address_that_somebody_has_waits_for_it() {
    let scene = Scene::new(&[]).await;
    let stage = &scene.stage;
    stage.pool("pool", &["10.30.0.1-10.30.0.9"], "").await;
    let _controller = scene.controller("ctl").await;
    stage.service("early", "", "").await;
    stage.has("early", &["10.30.0.1"], "pool").await;
    stage.apply(&reservation("mail", "10.30.0.1", "service: { namespace: default, name: mail }")).await;
    scene.said("Service", "early", "AddressReserved", &["10.30.0.1", "default/mail", "keeps it"]).await;
    stage.has("early", &["10.30.0.1"], "pool").await;

    stage.service("mail", "", "").await;
    let why = stage.waits("mail", "ReservedAddressHeld").await;
    assert!(why.contains("10.30.0.1") && why.contains("default/early"), "{why}");
    scene.kubectl(&["delete", "service", "early"]).await;
    stage.has("mail", &["10.30.0.1"], "pool").await;
}

#[tokio::test]
async fn a_bad_reservation_is_named_and_changes_nothing() {
    let scene = Scene::new(&[]).await;
    let stage = &scene.stage;
    stage.pool("pool", &["10.30.0.1-10.30.0.9"], "").await;
    stage.apply(&reservation("one", "10.30.0.1", "service: { namespace: default, name: one }")).await;
    let _controller = scene.controller("ctl").await;
    stage.service("web", "", "").await;
    stage.has("web", &["10.30.0.2"], "pool").await;
    stage.apply(&reservation("two", "10.30.0.0/31", "service: { namespace: default, name: two }")).await;
    let summary = stage.configuration_is("Invalid").await["errorSummary"].to_string();
    assert!(summary.contains("AddressReservation") && summary.contains("two"), "{summary}");
    scene.said("AddressReservation", "two", "ConfigurationError", &["spec.addresses[0]"]).await;
    stage.service("one", "", "").await;
    stage.has("one", &["10.30.0.1"], "pool").await;
    scene.kubectl(&["delete", "addressreservation", "two", "-n", NAMESPACE]).await;
    stage.configuration_is("Valid").await;
}

#[tokio::test]
async fn a_reservation_is_being_asked_and_what_the_service_asks_itself_wins() {
    let scene = Scene::new(&[]).await;
    let stage = &scene.stage;
    stage.pool("pool", &["10.30.0.1-10.30.0.9"], "").await;
    stage.pool("quiet", &["10.31.0.1-10.31.0.9"], "  autoAssign: false").await;
    stage
        .pool("other-team", &["10.32.0.1-10.32.0.9"], "  serviceAllocation: { namespaces: [elsewhere] }")
        .await;
    let _controller = scene.controller("ctl").await;
    let of = |name: &str, address: &str| {
        reservation(name, address, &format!("service: {{ namespace: default, name: {name} }}"))
    };
    stage.apply(&of("quiet", "10.31.0.5")).await;
    stage.service("quiet", "", "").await;
    stage.has("quiet", &["10.31.0.5"], "quiet").await;

    stage.apply(&of("asks", "10.30.0.5")).await;
    stage.service("asks", "", "loadBalancerIP: 10.30.0.7").await;
    stage.has("asks", &["10.30.0.7"], "pool").await;

    stage.service("has-one", "", "").await;
    stage.has("has-one", &["10.30.0.1"], "pool").await;
    stage.apply(&of("has-one", "10.30.0.8")).await;
    scene.said("Service", "has-one", "ReservationUnused", &["10.30.0.8", "has-one"]).await;
    stage.has("has-one", &["10.30.0.1"], "pool").await;

    stage.apply(&of("pinned", "10.32.0.5")).await;
    stage.service("pinned", "", "").await;
    let pinned = stage
        .until("pinned", "was decided about", |service| {
            !crate::stage::ingress(service).is_empty()
                || crate::stage::condition(service, "patina.io/Allocated").is_some()
        })
        .await;
    assert!(!crate::stage::ingress(&pinned).contains(&"10.32.0.5"), "{:?}", pinned.status);
}
