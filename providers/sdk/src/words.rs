//! Errors in the words that people need.

use std::error::Error;

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
