//! The supervisor alone, for this crate's own tests: `supervise SERVICES_DIRECTORY NAME`. Everybody else runs the CLI's.

use std::path::Path;

use provisioning_platform::{Instance, supervise};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(services), Some(name)) = (arguments.next(), arguments.next()) else {
        return Err("usage: supervise SERVICES_DIRECTORY NAME".into());
    };
    supervise(&Instance::below(Path::new(&services), name.parse()?)?).await?;
    Ok(())
}
