//! Certificates come, end and are replaced, and nobody notices.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use patina_e2e::wait::{self, Seen, secs};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

use crate::stage::{NAMESPACE, PEERS, SHELL, SOON, Stage, Stream};

/// A CA of 24 s and certificates of 8 s: both end many times.
const SHORT: [&str; 4] = [
    "--webhook-ca-seconds=24",
    "--webhook-certificate-seconds=8",
    "--webhook-renew-seconds=5",
    "--webhook-overlap-seconds=2",
];

#[tokio::test]
async fn certificates_and_cas_end_under_a_stream_of_writes_and_none_fails() {
    let stage = Stage::installed(&["apply"]).await;
    let _replicas = (stage.replica(1, &SHORT).await, stage.replica(2, &SHORT).await);
    stage.asked().await;
    let stream = Stream::start(&stage).await;
    let (cas, certificates) = (RefCell::new(BTreeSet::new()), RefCell::new(BTreeSet::new()));
    wait::until("three CAs and eight certificates", secs(120), || async {
        let bundle = stage.secret("ca.crt").await;
        let newest = bundle.split_inclusive("-----END CERTIFICATE-----").next().unwrap_or_default();
        cas.borrow_mut().insert(newest.to_owned());
        let certificate = stage.secret("tls.crt").await;
        certificates.borrow_mut().insert(certificate);
        let seen = (cas.borrow().len(), certificates.borrow().len());
        Ok(Seen::when(seen.0 >= 3 && seen.1 >= 8, seen))
    })
    .await
    .unwrap_or_else(|e| panic!("{e:#}\n{}", stage.logs()));
    let (done, failures) = stream.end().await;
    assert!(
        done > 100 && failures.is_empty(),
        "{} of {done} failed: {failures:#?}\n{}",
        failures.len(),
        stage.logs()
    );
    for log in [stage.logs(), stage.kubectl(&["get", SHELL, PEERS, "-o", "yaml"]).await] {
        assert!(!log.contains("PRIVATE"), "a key went where it does not belong");
    }
}

#[tokio::test]
async fn one_that_ended_while_nobody_ran_and_one_that_was_taken_away_are_replaced() {
    let stage = Stage::installed(&["apply"]).await;
    let mut first = stage.replica(1, &["--webhook-certificate-seconds=3", "--webhook-renew-seconds=1"]).await;
    stage.asked().await;
    first.process.kill();
    let (killed, ended) = (Instant::now(), stage.secret("tls.crt").await);
    wait::until("it has ended", SOON, || async {
        Ok(Seen::when(killed.elapsed() > Duration::from_secs(3), killed.elapsed()))
    })
    .await
    .unwrap();
    let _second = stage.replica(1, &[]).await;
    stage.asked().await;
    assert_ne!(stage.secret("tls.crt").await, ended);

    // A person empties the Secret, to have new ones: the old ones serve until the API server knows the new ones.
    let ca = stage.secret("ca.crt").await;
    let stream = Stream::start(&stage).await;
    let patch = "--patch=[{\"op\": \"remove\", \"path\": \"/data\"}]";
    stage.kubectl(&["patch", "secret", "metallb-webhook-cert", "-n", NAMESPACE, "--type=json", patch]).await;
    stage
        .until(
            "there is a new CA before the old one",
            "secret/metallb-webhook-cert",
            "{.data.ca\\.crt}",
            |now| !now.is_empty(),
        )
        .await;
    stream.goes_on(50).await;
    let (done, failures) = stream.end().await;
    assert!(failures.is_empty(), "{} of {done} failed: {failures:#?}\n{}", failures.len(), stage.logs());
    let now = stage.secret("ca.crt").await;
    assert!(now != ca && now.contains(ca.trim()), "the old CA is trusted for now");
}

/// As cert-manager would.
#[tokio::test]
async fn somebody_elses_certificates_are_served_and_left_alone() {
    let stage = Stage::installed(&["apply"]).await;
    let mut replica = stage.start(1, &["--disable-cert-rotation"]).await;
    let said = wait::until("it says what is missing", SOON, || async {
        let log = replica.process.log_tail(60);
        Ok(Seen::when(log.contains("tls.crt has no certificate"), log))
    });
    said.await.unwrap();
    let (ca, certificate, key) = issued();
    let entry = |key: &str, text: &str| {
        format!("  {key}: |\n{}", text.lines().map(|l| format!("    {l}\n")).collect::<String>())
    };
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: metallb-webhook-cert, namespace: {NAMESPACE}}}\nstringData:\n{}{}{}",
        entry("ca.crt", &ca),
        entry("tls.crt", &certificate),
        entry("tls.key", &key)
    );
    stage.applied(&secret).await;
    stage.ready(&replica).await;
    stage.endpoint(&replica, true).await;
    stage.asked().await;
    assert_eq!(
        (stage.secret("tls.crt").await.trim(), stage.secret("ca.key").await.as_str()),
        (certificate.trim(), "")
    );
    assert!(replica.process.exited().is_none());
}

/// CA, certificate and key, PEM.
fn issued() -> (String, String, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_key = KeyPair::generate().unwrap();
    let ca = params.self_signed(&ca_key).unwrap().pem();
    let issuer = Issuer::new(params, ca_key);
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![format!("metallb-webhook-service.{NAMESPACE}.svc")]).unwrap();
    (ca, params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
}
