//! Flags: MetalLB's where the meaning is the same, ours beside them.

use clap::Parser;
use patina_controller_core::decide::Policy;
use patina_runtime::flags::Common;

use crate::{memberlist, webhook};

/// Gives Services of type LoadBalancer an address out of pools.
///
/// Takes MetalLB's flags (one or two dashes) and environment variables. Flags of MetalLB that have no meaning here are
/// refused with a reason, except those below that say "accepted".
#[derive(Clone, Debug, Parser)]
#[command(name = "patina-controller", version)]
pub(crate) struct Settings {
    #[command(flatten)]
    pub(crate) common: Common,

    /// When the pools pinned to a Service by serviceAllocation are full, let it wait instead of taking an address from an
    /// open pool as MetalLB does.
    #[arg(long)]
    pub(crate) strict_pinning: bool,

    /// Seconds after which another controller takes over from one that does not renew its Lease any more (3 to 600). The
    /// one that cannot renew stops after two thirds of it. The same for all controllers of a cluster.
    #[arg(long, value_name = "SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u64).range(3..=600))]
    pub(crate) lease_duration: u64,

    #[command(flatten)]
    pub(crate) webhook: webhook::Settings,

    /// Name of the Secret with the key of the speakers' membership: made in our namespace when it is missing, with 32
    /// random bytes as its key secretkey. None: somebody else makes it, or there is none.
    #[arg(long, env = "METALLB_ML_SECRET_NAME", value_name = "NAME")]
    pub(crate) ml_secret_name: Option<String>,

    /// The controller's Deployment: owner of that Secret.
    #[arg(long, env = "METALLB_DEPLOYMENT", value_name = "NAME")]
    pub(crate) deployment: Option<String>,
}

impl Settings {
    pub(crate) fn policy(&self) -> Policy {
        Policy {
            class: self.common.lb_class.clone().filter(|class| !class.is_empty()),
            strict_pinning: self.strict_pinning,
        }
    }

    /// The Secret that is to be made for the speakers.
    pub(crate) fn memberlist(&self) -> Option<memberlist::Wish> {
        let wish = |secret: &String| memberlist::Wish {
            secret: secret.clone(),
            deployment: self.deployment.clone(),
        };
        self.ml_secret_name.as_ref().map(wish)
    }

    /// One line per accepted flag that does nothing.
    pub(crate) fn say_what_is_ignored(&self) {
        if self.webhook.webhook_http2 {
            tracing::info!("--webhook-http2 has no effect: the webhook speaks HTTP/1.1");
        }
    }
}

#[cfg(test)]
mod tests {
    use patina_runtime::flags::{METALLB_REFUSED, try_parse};

    use super::*;

    fn parse(args: &[&str]) -> Result<Settings, String> {
        let args = std::iter::once("patina-controller").chain(args.iter().copied());
        try_parse(args.map(Into::into), METALLB_REFUSED).map_err(|stop| stop.text)
    }

    #[test]
    fn the_arguments_of_metallbs_manifests_are_taken() {
        let settings = parse(&["--port=7472", "--log-level=info", "--webhook-mode=enabled"]).unwrap();
        assert_eq!(settings.common.port, 7472);
        assert_eq!(settings.policy().class, None);
        let settings = parse(&["-lb-class=a.io/b", "-namespace", "x", "--config=other"]).unwrap();
        assert_eq!(settings.policy().class.as_deref(), Some("a.io/b"));
        assert_eq!((settings.common.namespace.as_str(), settings.common.config.as_str()), ("x", "other"));
        assert_eq!(parse(&["--lb-class="]).unwrap().policy().class, None);
        let settings =
            parse(&["--webhook-mode=onlywebhook", "--tls-min-version=VersionTLS12", "--webhook-http2=false"]);
        let webhook = settings.unwrap().webhook;
        assert_eq!(webhook.webhook_mode, webhook::Mode::OnlyWebhook);
        assert!(webhook.offer().is_ok() && webhook.serves());
        let webhook = parse(&["--disable-cert-rotation", "--webhook-secret=x", "--webhook-mode=disabled"])
            .unwrap()
            .webhook;
        assert!(webhook.disable_cert_rotation && !webhook.serves());
        assert_eq!(parse(&[]).unwrap().webhook.webhook_mode, webhook::Mode::Enabled, "as in MetalLB");
    }

    #[test]
    fn what_means_nothing_is_refused_with_a_reason() {
        for (args, hint) in [
            (&["--webhook-mode=maybe"][..], "onlywebhook"),
            (&["--webhook-failure-policy=Perhaps"], "Ignore"),
            (&["--webhook-port=0"], "1..=65535"),
            (&["--tls-curve-preferences=23"], "leave it out"),
            (&["--cert-dir=/tmp"], "Secret"),
            (&["--namespce=x"], "namespace"),
        ] {
            let text = parse(args).unwrap_err();
            assert!(text.contains(hint), "{args:?}: {text}");
        }
    }
}
