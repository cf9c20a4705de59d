//! See `lab --help`.

use std::process::ExitCode;

fn main() -> ExitCode {
    patina_e2e::cli::main()
}
