//! Flags: MetalLB's where the meaning is the same, ours beside them.

use clap::Parser;
use patina_controller_core::decide::Policy;
use patina_runtime::flags::Common;

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

    /// enabled or disabled. Accepted: this version has no webhook, the CRDs check what they can by themselves, and
    /// everything else is checked when the configuration is read.
    #[arg(long, value_name = "MODE", value_parser = webhook_mode)]
    pub(crate) webhook_mode: Option<String>,

    /// Accepted, without effect: no memberlist Secret is made in this version.
    #[arg(long, env = "METALLB_ML_SECRET_NAME", value_name = "NAME")]
    pub(crate) ml_secret_name: Option<String>,

    /// Accepted, without effect: nothing is owned by the Deployment in this version.
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

    /// One line per accepted flag that does nothing.
    pub(crate) fn say_what_is_ignored(&self) {
        if self.webhook_mode.as_deref() == Some("enabled") {
            tracing::info!(
                "--webhook-mode=enabled: this version has no webhook; the CRDs check what they can by themselves, and \
                 errors in the configuration are reported as events and in the ConfigurationState"
            );
        }
        if self.ml_secret_name.is_some() {
            tracing::info!("--ml-secret-name has no effect in this version");
        }
    }
}

fn webhook_mode(text: &str) -> Result<String, String> {
    match text {
        "enabled" | "disabled" => Ok(text.to_owned()),
        "onlywebhook" => {
            Err("this version has no webhook, so a controller that is only a webhook would do nothing; \
             leave the flag out and run one Deployment"
                .to_owned())
        }
        _ => Err("allowed are enabled and disabled".to_owned()),
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
    }

    #[test]
    fn what_means_nothing_is_refused_with_a_reason() {
        for (args, hint) in [
            (&["--webhook-mode=onlywebhook"][..], "no webhook"),
            (&["--webhook-mode=maybe"], "allowed are enabled and disabled"),
            (&["--tls-min-version=VersionTLS13"], "plain HTTP"),
            (&["--cert-dir=/tmp"], "no webhook"),
            (&["--namespce=x"], "namespace"),
        ] {
            let text = parse(args).unwrap_err();
            assert!(text.contains(hint), "{args:?}: {text}");
        }
    }
}
