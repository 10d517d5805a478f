//! The contract between the operator and its executors: the programs inside the Pods of Jobs, which are the only
//! ones that act on the world (a provider's API, a server).
//!
//! An executor gets one [`request::Envelope`] in the environment, *claims* its run (protocols §2) before any effect,
//! does one thing within its deadline, and leaves one [`result::StepResult`] as the container's termination
//! message. The operator uses the types; feature `executor` adds the executor's side.
#![deny(missing_docs)]

#[cfg(feature = "executor")]
pub mod claim;
#[cfg(feature = "executor")]
pub mod executor;
#[cfg(feature = "executor")]
pub mod patience;
pub mod request;
pub mod result;
pub mod values;
#[cfg(feature = "executor")]
pub mod words;
