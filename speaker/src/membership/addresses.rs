//! Where this speaker is reached: `--ml-bindaddr`, else the Pod's addresses; one per family.

use std::net::{IpAddr, SocketAddr};

use patina_crds::net::Family;

use super::StartError;
use crate::settings::Settings;

/// The preferred one first; empty when nothing says so.
pub(super) fn own(settings: &Settings) -> Result<Vec<SocketAddr>, StartError> {
    let bind = parse("--ml-bindaddr", settings.ml_bindaddr.as_deref())?;
    // 0.0.0.0 and :: say nothing about where others reach us.
    let bind: Vec<IpAddr> = bind.into_iter().filter(|ip| !ip.is_unspecified()).collect();
    let all = if bind.is_empty() { parse("METALLB_POD_IPS", settings.pod_ips.as_deref())? } else { bind };
    let mut own: Vec<SocketAddr> = Vec::new();
    for ip in all {
        if own.iter().all(|address| Family::of(address.ip()) != Family::of(ip)) {
            own.push(SocketAddr::new(ip, settings.ml_bindport));
        }
    }
    Ok(own)
}

fn parse(flag: &'static str, text: Option<&str>) -> Result<Vec<IpAddr>, StartError> {
    let words = text.unwrap_or_default().split(',').map(str::trim).filter(|word| !word.is_empty());
    words.map(|word| word.parse().map_err(|_| StartError::Address { flag, found: word.to_owned() })).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    fn own_of(args: &str) -> Result<Vec<String>, String> {
        let always = ["patina-speaker", "--node-name=n", "--ml-bindport=7000"];
        let settings = Settings::parse_from(always.into_iter().chain(args.split_whitespace()));
        own(&settings).map(|all| all.iter().map(ToString::to_string).collect()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_flag_comes_before_the_pod_and_there_is_one_address_per_family() {
        for (args, expected) in [
            ("", &[][..]),
            ("--pod-ips=10.0.0.1,fd00::1", &["10.0.0.1:7000", "[fd00::1]:7000"]),
            ("--pod-ips=fd00::1,10.0.0.1,10.0.0.2", &["[fd00::1]:7000", "10.0.0.1:7000"]),
            ("--pod-ips=10.0.0.1,fd00::1 --ml-bindaddr=10.9.0.1", &["10.9.0.1:7000"]),
            ("--pod-ips=10.0.0.1 --ml-bindaddr=0.0.0.0", &["10.0.0.1:7000"]),
            ("--ml-bindaddr=10.9.0.1,fd09::1", &["10.9.0.1:7000", "[fd09::1]:7000"]),
        ] {
            assert_eq!(own_of(args).unwrap(), expected, "{args}");
        }
    }

    #[test]
    fn what_is_no_address_is_named() {
        assert_eq!(
            own_of("--ml-bindaddr=eth0").unwrap_err(),
            "--ml-bindaddr: \"eth0\" is no IP address; one of each family at most, separated by a comma"
        );
    }
}
