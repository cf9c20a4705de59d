//! One row per way to write a command line.

use std::ffi::OsString;

use super::{Common, LogLevel, METALLB_REFUSED, Stop, try_parse};

#[derive(Debug, clap::Parser)]
#[command(name = "patina-speaker", version = "1.2.3", about = "Announces addresses from this node")]
struct Speaker {
    #[command(flatten)]
    common: Common,
    /// Name of this node.
    #[arg(long)]
    node_name: Option<String>,
    /// Announce from nodes with the exclude label too.
    #[arg(long)]
    ignore_exclude_lb: bool,
}

fn run(line: &str) -> Result<Speaker, Stop> {
    try_parse(
        std::iter::once("patina-speaker").chain(line.split_whitespace()).map(OsString::from),
        METALLB_REFUSED,
    )
}

#[test]
fn go_style_and_gnu_style_mean_the_same() {
    for line in ["-port=1", "--port=1", "-port 1", "--port 1", "--port=7 -port=1"] {
        assert_eq!(run(line).unwrap().common.port, 1, "{line}");
    }
    for (line, on) in [
        ("", false),
        ("--ignore-exclude-lb", true),
        ("-ignore-exclude-lb", true),
        ("--ignore-exclude-lb=true", true),
        ("--ignore-exclude-lb=1", true),
        ("--ignore-exclude-lb=false", false),
        ("--ignore-exclude-lb --ignore-exclude-lb=F", false),
        ("--ignore-exclude-lb --ignore-exclude-lb", true),
    ] {
        assert_eq!(run(line).unwrap().ignore_exclude_lb, on, "{line}");
    }
    assert_eq!(run("--node-name -odd-").unwrap().node_name.as_deref(), Some("-odd-"), "a value is a value");
}

#[test]
fn defaults_are_those_of_the_documentation() {
    let common = run("").unwrap().common;
    assert_eq!((common.port, common.health_probe_port), (7472, 17472));
    assert_eq!((common.config.as_str(), common.lb_class.as_deref()), ("config", None));
    assert_eq!(common.log_level, LogLevel::Info);
    assert_eq!(common.metrics_address().map(|a| a.to_string()).as_deref(), Some("[::]:7472"));
    assert_eq!(common.local_health_address().map(|a| a.to_string()).as_deref(), Some("127.0.0.1:17472"));
}

#[test]
fn an_empty_class_is_no_class() {
    assert_eq!(run("--lb-class=").unwrap().common.lb_class, None);
    assert_eq!(run("--lb-class=x").unwrap().common.lb_class.as_deref(), Some("x"));
}

#[test]
fn every_level_of_metallb_is_known() {
    for (text, level) in [
        ("all", LogLevel::All),
        ("debug", LogLevel::Debug),
        ("info", LogLevel::Info),
        ("warn", LogLevel::Warn),
        ("error", LogLevel::Error),
        ("none", LogLevel::None),
    ] {
        assert_eq!(run(&format!("--log-level={text}")).unwrap().common.log_level, level);
    }
}

#[test]
fn a_wrong_line_stops_with_code_2_and_says_what_to_do() {
    for (line, parts) in [
        ("--prot=1", &["unknown flag --prot", "did you mean --port?", "known flags: --config"][..]),
        ("--nodename=a", &["did you mean --node-name?"]),
        ("--xyzzy", &["unknown flag --xyzzy", "known flags:"]),
        ("-n=a", &["unknown flag --n"]),
        (
            "--bgp-debounce-timeout=3000",
            &["--bgp-debounce-timeout of MetalLB has no meaning here", "leave it out"],
        ),
        ("--frrk8s-namespace=a", &["frr-k8s"]),
        ("--frrk8s-namespac=a", &["did you mean --frrk8s-namespace? It has no meaning here"]),
        ("--ml-wan-config", &["memberlist"]),
        ("--port=99999", &["99999", "--port"]),
        ("--port", &["needs a value"]),
        ("--log-level=loud", &["loud", "debug", "none"]),
        ("--ignore-exclude-lb=maybe", &["on or off", "maybe"]),
        ("stray", &["stray"]),
    ] {
        let stop = run(line).unwrap_err();
        assert_eq!(stop.code, 2, "{line}");
        for part in parts {
            assert!(stop.text.contains(part), "{line}: {part:?} is not in\n{}", stop.text);
        }
    }
}

#[test]
fn a_refused_flag_that_is_off_asks_for_nothing() {
    for line in ["--ml-wan-config=false", "--pprof-bind-address=", "--bgp-debounce-timeout=0"] {
        assert!(run(line).is_ok(), "{line}");
    }
}

#[test]
fn help_and_version_end_well_and_teach() {
    let help = run("--help").unwrap_err();
    assert_eq!(help.code, 0);
    for part in ["--port", "METALLB_NAMESPACE", "7472", "metallb-system", "/readyz"] {
        assert!(help.text.contains(part), "{part:?} is not in\n{}", help.text);
    }
    assert_eq!(run("-version").unwrap_err(), Stop { text: "patina-speaker 1.2.3\n".to_owned(), code: 0 });
    assert_eq!(run("-h").unwrap_err().code, 0);
}
