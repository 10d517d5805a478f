//! `provider-conformance`: does a provider keep its contract? See the library.

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    provisioning_conformance::command::run().await
}
