//! `fencepost`: what device events do on this machine, from the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(fencepost_cli::run(std::env::args_os()))
}
