//! From an error to a result: class, stable reason, and the whole chain as words, flattened here and nowhere else.

use std::error::Error;

use provisioning_api::steps::FailureClass;
use provisioning_sdk::result::StepResult;
use provisioning_sdk::words::words;

use crate::catalog::CatalogError;
use crate::keys::KeyError;
use crate::names::NameError;

/// An error that knows what follows from it (protocols §4).
pub trait Failure: Error {
    /// What the operator does about it.
    fn class(&self) -> FailureClass;
    /// Stable constant in CamelCase.
    fn reason(&self) -> &'static str;
    /// Seconds that the API server asked us to wait.
    fn retry_after_seconds(&self) -> Option<i64> {
        None
    }
}

/// The result that an error becomes.
pub fn to_result<E: Failure + 'static>(error: &E) -> StepResult {
    let mut result = StepResult::failed(error.class(), error.reason(), &words(error));
    result.retry_after_seconds = error.retry_after_seconds();
    result
}

impl Failure for NameError {
    fn class(&self) -> FailureClass {
        FailureClass::Invalid
    }
    fn reason(&self) -> &'static str {
        "BadRequest"
    }
}

impl Failure for KeyError {
    fn class(&self) -> FailureClass {
        FailureClass::Transient
    }
    fn reason(&self) -> &'static str {
        "NoHostKey"
    }
}

impl Failure for CatalogError {
    fn class(&self) -> FailureClass {
        FailureClass::Invalid
    }
    fn reason(&self) -> &'static str {
        match self {
            CatalogError::FindKey | CatalogError::ReadCatalog(_) | CatalogError::CheckDiskRoot(_) => "BadCatalog",
            CatalogError::FindOffer { .. } | CatalogError::FindAny(_) => "NotOffered",
            CatalogError::FitResult(_) => "CatalogTooLarge",
        }
    }
}
