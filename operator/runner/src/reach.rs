//! First contact: is the server there, is it the right one, has it booted, has it `nu`?

use std::time::Duration;

use provisioning_sdk::request::Target;
use tokio::time::{Instant, sleep};

use crate::failure::Failure;
use crate::fence::Fence;
use crate::server::Server;
use crate::ssh::Destination;
use crate::{Outputs, Settings, with_sessions};

/// How long a server may take to boot after it answered, and how often it is asked.
const BOOT: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(500);

/// Reaches a server. Outputs: `machineID`, `hostname`.
///
/// # Errors
/// [`Failure`]
pub async fn run(
    settings: &Settings,
    fence: &mut impl Fence,
    target: &Target,
    deadline: Instant,
) -> Result<Outputs, Failure> {
    let destination = Destination::new(target, &settings.key).map_err(crate::server::ServerError::from)?;
    let facts = with_sessions(deadline, async |until| {
        let server = Server::open(&destination, &settings.layout, fence, until).await?;
        wait_until_booted(&server, target, deadline.min(Instant::now() + BOOT)).await?;
        server.ensure_nu(&settings.nu, fence).await?;
        Ok(server.facts().await?)
    })
    .await?;
    Ok([("machineID", facts.machine_id), ("hostname", facts.hostname)]
        .map(|(name, value)| (name.to_owned(), value))
        .into())
}

async fn wait_until_booted(server: &Server<'_>, target: &Target, until: Instant) -> Result<(), Failure> {
    loop {
        let state = server.boot_state().await?;
        if matches!(state.as_str(), "running" | "degraded") {
            return Ok(());
        }
        if Instant::now() + POLL >= until {
            return Err(Failure::NotBooted { server: target.server.clone(), state });
        }
        sleep(POLL).await;
    }
}
