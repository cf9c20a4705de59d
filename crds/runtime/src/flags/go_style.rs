//! From Go's flag syntax to clap's. Only spelling changes here; values are clap's business.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command};

use super::{Stop, USAGE};

/// Rewrites `-flag=x`, `-flag x`, `--switch=true|false` so that clap understands them, and stops at flags that are
/// refused or unknown. Arguments that are no flags, and everything behind `--`, pass unchanged.
pub(super) fn normalise(
    command: &Command,
    args: impl IntoIterator<Item = OsString>,
    refused: &[(&str, &str)],
) -> Result<Vec<OsString>, Stop> {
    let mut args = args.into_iter();
    let mut out: Vec<OsString> = args.next().into_iter().collect();
    while let Some(arg) = args.next() {
        let Some(text) = arg.to_str() else {
            out.push(arg);
            continue;
        };
        if text == "--" {
            out.push(arg);
            out.extend(args);
            break;
        }
        let Some((name, value)) = split(text, command) else {
            out.push(arg);
            continue;
        };
        match find(command, name) {
            Some(flag) if !flag.get_action().takes_values() => switch(command, flag, name, value, &mut out)?,
            Some(flag) => {
                let value = match value {
                    Some(value) => OsString::from(value),
                    None => args.next().ok_or_else(|| {
                        stop(command, &format!("flag --{name} needs a value: --{name}=VALUE"))
                    })?,
                };
                if value.is_empty() && is_optional(flag) {
                    continue; // `--lb-class=` says what leaving it out says
                }
                let mut joined = OsString::from(format!("--{name}="));
                joined.push(value);
                out.push(joined);
            }
            None => unknown(command, name, value, refused)?,
        }
    }
    Ok(out)
}

/// Name and value of a flag in any of Go's spellings; `None` for what is no flag, or a short one that clap knows.
fn split<'a>(text: &'a str, command: &Command) -> Option<(&'a str, Option<&'a str>)> {
    let rest = text.strip_prefix("--").or_else(|| text.strip_prefix('-'))?;
    if rest.is_empty() {
        return None;
    }
    let short = text.starts_with("--").then_some(()).is_none() && rest.chars().count() == 1;
    if short && command.get_arguments().any(|arg| arg.get_short() == rest.chars().next()) {
        return None;
    }
    Some(match rest.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (rest, None),
    })
}

fn find<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    command.get_arguments().find(|arg| {
        arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
    })
}

/// No value is a value of such a flag: neither a default nor the environment would take its place.
fn is_optional(flag: &Arg) -> bool {
    !flag.is_required_set() && flag.get_default_values().is_empty() && flag.get_env().is_none()
}

fn switch(
    command: &Command,
    flag: &Arg,
    name: &str,
    value: Option<&str>,
    out: &mut Vec<OsString>,
) -> Result<(), Stop> {
    let plain = OsString::from(format!("--{name}"));
    match value.map(go_bool) {
        None | Some(Some(true)) => {
            if !(matches!(flag.get_action(), ArgAction::SetTrue) && out.contains(&plain)) {
                out.push(plain);
            }
            Ok(())
        }
        Some(Some(false)) => {
            out.retain(|earlier| *earlier != plain); // the last one wins
            Ok(())
        }
        Some(None) => Err(stop(
            command,
            &format!(
                "flag --{name} is on or off: --{name}, --{name}=true or --{name}=false; found {value:?}"
            ),
        )),
    }
}

/// What Go's strconv.ParseBool accepts.
fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn unknown(command: &Command, name: &str, value: Option<&str>, refused: &[(&str, &str)]) -> Result<(), Stop> {
    if let Some((_, hint)) = refused.iter().find(|(flag, _)| *flag == name) {
        // Asked for as off, it asks for what is the case anyway.
        if value.is_some_and(|value| value.is_empty() || value == "0" || go_bool(value) == Some(false)) {
            return Ok(());
        }
        return Err(stop(command, &format!("flag --{name} of MetalLB has no meaning here: {hint}")));
    }
    let known: Vec<&str> =
        command.get_arguments().filter(|arg| !arg.is_hide_set()).filter_map(Arg::get_long).collect();
    let mut message = format!("unknown flag --{name}");
    let nearest = known
        .iter()
        .chain(refused.iter().map(|(flag, _)| flag))
        .map(|flag| (strsim::jaro_winkler(name, flag), *flag))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness > 0.8);
    if let Some((_, flag)) = nearest {
        message.push_str(&match refused.iter().find(|(other, _)| *other == flag) {
            Some((_, hint)) if !known.contains(&flag) => {
                format!("\n  did you mean --{flag}? It has no meaning here: {hint}")
            }
            _ => format!("\n  did you mean --{flag}?"),
        });
    }
    let mut sorted = known;
    sorted.sort_unstable();
    let list = sorted.iter().map(|flag| format!("--{flag}")).collect::<Vec<_>>().join(" ");
    message.push_str(&format!("\n  known flags: {list}"));
    Err(stop(command, &message))
}

fn stop(command: &Command, message: &str) -> Stop {
    let name = command.get_name();
    Stop { text: format!("{name}: {message}\n  see {name} --help\n"), code: USAGE }
}
