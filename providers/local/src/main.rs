//! `provider-local`: one request of the operator to the Local provider (see the library).

use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    provisioning_provider_local::run().await
}
