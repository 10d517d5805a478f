//! The program inside a taskserv's Job. Everything is in the library.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    provisioning_sdk::executor::run(provisioning_runner::execute).await
}
