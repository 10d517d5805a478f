//! The question before every mutating call: may this run still act?

use std::future::Future;
use std::time::Duration;

use provisioning_sdk::claim::{Claim, ClaimError};

/// How often an unanswered question is asked again, and how long to wait between.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_secs(1);

/// Says whether this run may still act. The real one is the held [`Claim`]; tests have their own.
pub trait Fence: Send {
    /// Asked before every mutating call.
    ///
    /// # Errors
    /// [`ClaimError`] where it may not, or nobody answers.
    fn confirm(&mut self) -> impl Future<Output = Result<(), ClaimError>> + Send;
}

impl Fence for Claim {
    async fn confirm(&mut self) -> Result<(), ClaimError> {
        let mut tries = 1;
        loop {
            match Claim::confirm(self).await {
                Err(ClaimError::Request { object, source }) if tries < TRIES => {
                    tracing::warn!(object, error = %source, "the API server does not answer; asking again");
                    tokio::time::sleep(PAUSE * tries).await;
                    tries += 1;
                }
                answer => return answer,
            }
        }
    }
}
