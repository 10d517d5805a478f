//! From an error to a result: class, stable reason, and the whole chain as words, flattened here and nowhere else.

use std::error::Error;

use provisioning_api::steps::FailureClass;
use provisioning_sdk::result::StepResult;

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

/// The chain of an error in one line. The API server's own words replace the client's rendering of them.
pub fn words(error: &(dyn Error + 'static)) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        // Errors box the client's, and the box is an error of its own.
        let boxed = error.downcast_ref::<Box<kube::Error>>().map(|boxed| &**boxed);
        if let Some(kube::Error::Api(status)) = boxed.or_else(|| error.downcast_ref()) {
            parts.push(status.message.clone());
            break;
        }
        let text = error.to_string();
        // Some clients' errors repeat their source's text.
        if !parts.last().is_some_and(|last| last.ends_with(&text)) {
            parts.push(text);
        }
        next = error.source();
    }
    parts.join(": ")
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
