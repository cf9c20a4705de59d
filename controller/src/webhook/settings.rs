//! Flags of the webhook.

use std::time::Duration;

use clap::{Args, ValueEnum};

use super::certificates::Lifetimes;
use super::tls::Offer;

/// `--webhook-mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum Mode {
    /// Serve, and tell the API server.
    Enabled,
    /// Serve nothing, and take back what the API server was told.
    Disabled,
    /// Serve, and give no addresses.
    OnlyWebhook,
}

#[derive(Clone, Debug, Args)]
#[group(id = "webhook")]
pub(crate) struct Settings {
    /// Check configuration before the API server takes it, and convert BGPPeers between their versions.
    #[arg(long, value_enum, value_name = "MODE", default_value = "enabled")]
    pub(crate) webhook_mode: Mode,

    /// Port of the webhook (HTTPS).
    #[arg(long, value_name = "PORT", default_value_t = 9443, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) webhook_port: u16,

    /// What the API server does with a change while no webhook answers: refuse it, or take it unseen.
    #[arg(long, value_name = "POLICY", default_value = "Fail", value_parser = ["Fail", "Ignore"])]
    pub(crate) webhook_failure_policy: String,

    /// Name of the Service that leads to the webhook.
    #[arg(long, value_name = "NAME", default_value = "metallb-webhook-service")]
    pub(crate) cert_service_name: String,

    /// Name of the Secret with the webhook's certificates. [keys: ca.crt, ca.key, tls.crt, tls.key]
    #[arg(long, value_name = "NAME", default_value = "metallb-webhook-cert")]
    pub(crate) webhook_secret: String,

    /// Somebody else (cert-manager) writes the certificates into the Secret; ca.key is not needed then.
    #[arg(long)]
    pub(crate) disable_cert_rotation: bool,

    /// The oldest TLS that the webhook speaks: VersionTLS12 or VersionTLS13.
    #[arg(long, value_name = "VERSION", default_value = "VersionTLS13")]
    pub(crate) tls_min_version: String,

    /// Cipher suites of TLS 1.2, by commas; those of 1.3 are fixed. [default: all that are safe]
    #[arg(long, value_name = "SUITES", default_value = "", hide_default_value = true)]
    pub(crate) tls_cipher_suites: String,

    /// Accepted, without effect: the webhook speaks HTTP/1.1.
    #[arg(long)]
    pub(crate) webhook_http2: bool,

    // Lifetimes in seconds: settings, so that a test can let a certificate end.
    #[arg(long, hide = true, default_value_t = 10 * 365 * DAY)]
    webhook_ca_seconds: u64,
    #[arg(long, hide = true, default_value_t = 365 * DAY)]
    webhook_certificate_seconds: u64,
    #[arg(long, hide = true, default_value_t = 90 * DAY)]
    webhook_renew_seconds: u64,
    #[arg(long, hide = true, default_value_t = 60)]
    webhook_overlap_seconds: u64,
}

const DAY: u64 = 24 * 3600;

impl Settings {
    /// Whether requests are answered.
    pub(crate) fn serves(&self) -> bool {
        self.webhook_mode != Mode::Disabled
    }

    /// # Errors
    /// What is wrong with the flags of TLS.
    pub(crate) fn offer(&self) -> Result<Offer, String> {
        Offer::read(&self.tls_min_version, &self.tls_cipher_suites)
    }

    pub(crate) fn lifetimes(&self) -> Lifetimes {
        Lifetimes {
            ca: Duration::from_secs(self.webhook_ca_seconds),
            server: Duration::from_secs(self.webhook_certificate_seconds),
            renew_ahead: Duration::from_secs(self.webhook_renew_seconds),
            overlap: Duration::from_secs(self.webhook_overlap_seconds),
        }
    }

    /// Every name of the Service inside the cluster; the API server asks for the third.
    pub(crate) fn names(&self, namespace: &str) -> Vec<String> {
        let service = &self.cert_service_name;
        ["", ".NS", ".NS.svc", ".NS.svc.cluster.local"]
            .iter()
            .map(|rest| format!("{service}{}", rest.replace("NS", namespace)))
            .collect()
    }
}
