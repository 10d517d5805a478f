//! One leader at a time, by a Kubernetes Lease. It is order; safety is the epoch's and the claim's (protocols §6).

use kube::Client;
use kube_lease_manager::{LeaseManagerBuilder, LeaseManagerError};
use tokio::sync::watch;

use crate::context::Settings;

/// Name of the Lease in the operator's namespace.
pub const LEASE: &str = "provisioning-operator";
/// A leader that has not renewed for so long is replaced, seconds.
const DURATION: u64 = 15;
/// It renews this long before that, seconds.
const GRACE: u64 = 10;

/// Starts the election; the channel says whether this process leads.
///
/// # Errors
/// Where the Lease cannot be read or created.
pub async fn elect(client: Client, settings: &Settings) -> Result<watch::Receiver<bool>, LeaseManagerError> {
    let manager = LeaseManagerBuilder::new(client, LEASE)
        .with_namespace(&settings.namespace)
        .with_identity(&settings.identity)
        .with_field_manager(&settings.identity)
        .with_duration(DURATION)
        .with_grace(GRACE)
        .build()
        .await?;
    let (channel, task) = manager.watch().await;
    // The task ends when the channel is dropped, that is with the process.
    drop(task);
    Ok(channel)
}
