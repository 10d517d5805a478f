//! Waiting for what shall become true, with a deadline.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kube::Api;
use provisioning_api::conditions::types::STALLED;
use tokio::time::Instant;

use crate::case::Case;
use crate::objects::{Kind, describe, is_ready, is_true};

/// How long a test waits for something, where it says nothing else. Servers boot side by side on two cores.
pub const DEADLINE: Duration = Duration::from_secs(180);
/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(200);

/// Looks until `look` says Ok(value). Err(text) is what it saw; the last one is the message of a timeout.
pub(crate) async fn until<T, F>(what: &str, deadline: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<Result<T, String>>>,
{
    let end = Instant::now() + deadline;
    loop {
        let seen = match look().await? {
            Ok(value) => return Ok(value),
            Err(seen) => seen,
        };
        if Instant::now() >= end {
            bail!("{what}: not so after {deadline:?}. Last seen:\n{seen}");
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

impl Case {
    /// The objects of a kind in this test's namespace.
    pub fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.cluster.client.clone(), &self.namespace)
    }

    /// An object, as it is now.
    ///
    /// # Errors
    /// Where it can't be read.
    pub async fn get<K: Kind>(&self, name: &str) -> Result<K> {
        self.api::<K>().get(name).await.with_context(|| format!("{} {name}", K::kind(&())))
    }

    /// Waits until the object is as `predicate` says; an absent object is not.
    ///
    /// # Errors
    /// After `deadline`, with the object's conditions and steps.
    pub async fn wait_for<K: Kind>(
        &self,
        name: &str,
        what: &str,
        deadline: Duration,
        predicate: impl Fn(&K) -> bool,
    ) -> Result<K> {
        let api = self.api::<K>();
        let what = format!("{} {name} {what}", K::kind(&()));
        until(&what, deadline, || async {
            Ok(match api.get_opt(name).await? {
                Some(object) if predicate(&object) => Ok(object),
                Some(object) => Err(describe(&object)),
                None => Err("absent".to_owned()),
            })
        })
        .await
    }

    /// Waits until the object is Ready for its generation. One that is Stalled instead fails at once.
    ///
    /// # Errors
    /// After [`DEADLINE`], or when it is Stalled, with its conditions and steps.
    pub async fn ready<K: Kind>(&self, name: &str) -> Result<K> {
        let end = |object: &K| is_ready(object) || is_true(object, STALLED);
        let object = self.wait_for(name, "Ready", DEADLINE, end).await?;
        if !is_ready(&object) {
            bail!("it stalled instead of becoming Ready:\n{}", describe(&object));
        }
        Ok(object)
    }

    /// Waits until the object is Stalled for its generation. One that is Ready instead fails at once.
    ///
    /// # Errors
    /// After [`DEADLINE`], or when it is Ready, with its conditions and steps.
    pub async fn stalled<K: Kind>(&self, name: &str) -> Result<K> {
        let end = |object: &K| is_ready(object) || is_true(object, STALLED);
        let object = self.wait_for(name, "Stalled", DEADLINE, end).await?;
        if is_ready(&object) {
            bail!("it is Ready instead of Stalled:\n{}", describe(&object));
        }
        Ok(object)
    }

    /// Waits until the object is gone.
    ///
    /// # Errors
    /// After `deadline`, with the object's conditions and steps.
    pub async fn gone<K: Kind>(&self, name: &str, deadline: Duration) -> Result<()> {
        let api = self.api::<K>();
        let what = format!("{} {name} gone", K::kind(&()));
        until(&what, deadline, || async {
            Ok(match api.get_opt(name).await? {
                Some(object) => Err(describe(&object)),
                None => Ok(()),
            })
        })
        .await
    }

    /// Looks, five times a second, until `look` gives Ok; Err(text) is what it saw.
    ///
    /// # Errors
    /// After `deadline`, with the last text; at once, where the look itself fails.
    pub async fn until<T, F>(&self, what: &str, deadline: Duration, look: impl FnMut() -> F) -> Result<T>
    where
        F: Future<Output = Result<Result<T, String>>>,
    {
        until(what, deadline, look).await
    }

    /// Watches for a while that something stays as it is.
    ///
    /// # Errors
    /// When `look` no longer gives the same value, with both.
    pub async fn stays<T: PartialEq + std::fmt::Debug, F>(
        &self,
        what: &str,
        time: Duration,
        mut look: impl FnMut() -> F,
    ) -> Result<T>
    where
        F: Future<Output = Result<T>>,
    {
        let end = Instant::now() + time;
        let before = look().await?;
        while Instant::now() < end {
            tokio::time::sleep(INTERVAL).await;
            let now = look().await?;
            if now != before {
                bail!("{what} did not stay the same:\n{before:#?}\n{now:#?}");
            }
        }
        Ok(before)
    }
}
