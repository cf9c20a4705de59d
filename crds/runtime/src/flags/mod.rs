//! Command lines as MetalLB's users write them: Go style (`-port=7472`, `--ignore-exclude-lb=false`), with MetalLB's
//! environment variables, and with a reason for every flag that has no meaning here.

mod common;
mod go_style;
mod refused;

use std::ffi::OsString;

use clap::Parser;

pub use common::{Common, LogFormat, LogLevel};
pub use refused::METALLB_REFUSED;

/// Exit code of a command line that we do not understand.
pub const USAGE: i32 = 2;

/// Why a command line does not lead to a start: help was asked for, or something in it is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// What to print, several lines.
    pub text: String,
    /// Exit code: 0 for help and version, [`USAGE`] otherwise.
    pub code: i32,
}

/// Parses the process's arguments; prints and exits when they ask for help or are wrong (code 2).
///
/// `refused` are pairs (flag without dashes, why it has no meaning here and what to do instead); a flag that `P` defines
/// is never refused, so that every binary can pass [`METALLB_REFUSED`].
#[must_use]
pub fn parse<P: Parser>(refused: &[(&str, &str)]) -> P {
    match try_parse(std::env::args_os(), refused) {
        Ok(parsed) => parsed,
        Err(stop) if stop.code == 0 => {
            print!("{}", stop.text);
            std::process::exit(0)
        }
        Err(stop) => {
            eprint!("{}", stop.text);
            std::process::exit(stop.code)
        }
    }
}

/// [`parse`] over given arguments, the first of which names the program.
///
/// # Errors
/// The text to print and the exit code.
pub fn try_parse<P: Parser>(
    args: impl IntoIterator<Item = OsString>,
    refused: &[(&str, &str)],
) -> Result<P, Stop> {
    let mut command = P::command();
    command.build();
    let args = go_style::normalise(&command, args, refused)?;
    // An environment variable that is empty is not set: manifests write `value: ""` for "default".
    let empty: Vec<_> = command
        .get_arguments()
        .filter(|arg| arg.get_env().is_some_and(|name| std::env::var_os(name).is_some_and(|v| v.is_empty())))
        .map(|arg| arg.get_id().clone())
        .collect();
    // As Go's flag package: the last of several wins.
    let mut command = P::command().args_override_self(true);
    for id in empty {
        command = command.mut_arg(id, |arg| arg.env(clap::builder::Resettable::Reset));
    }
    command
        .try_get_matches_from(args)
        .and_then(|mut matches| P::from_arg_matches_mut(&mut matches))
        .map_err(|error| Stop { text: error.render().to_string(), code: error.exit_code() })
}

#[cfg(test)]
mod tests;
