//! The `provisioning` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    provisioning_cli::run()
}
