//! The command `fencepost`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(fencepost_cli::run(std::env::args_os()))
}
