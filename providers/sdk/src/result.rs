//! What an executor leaves behind: one JSON object in the container's termination message, at most 4 KiB.

use std::collections::BTreeMap;

use provisioning_api::names::{MAX_RESULT, MAX_STEP_MESSAGE};
use provisioning_api::steps::FailureClass;
use serde::{Deserialize, Serialize};

/// Outcome of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepResult {
    /// `None`: it succeeded. Otherwise the class of the failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<FailureClass>,
    /// Stable constant in CamelCase.
    pub reason: String,
    /// For people, at most 256 bytes.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// The provider's identifier of what was made.
    #[serde(rename = "externalID", default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// Results by name; never a secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// The run is known not to have acted: it was refused before it held its claim.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub harmless: bool,
    /// Throttled: the provider's own wish, seconds. Unauthorized: when another try is worth while.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<i64>,
}

impl StepResult {
    /// Success with these outputs.
    pub fn succeeded(outputs: BTreeMap<String, String>) -> Self {
        StepResult {
            class: None,
            reason: "Succeeded".to_owned(),
            message: String::new(),
            external_id: None,
            outputs,
            harmless: false,
            retry_after_seconds: None,
        }
    }

    /// Failure of a class. The message is cut to 256 bytes, its end kept (the last words are the cause).
    pub fn failed(class: FailureClass, reason: &str, message: &str) -> Self {
        StepResult {
            class: Some(class),
            reason: reason.to_owned(),
            message: tail(message.trim(), MAX_STEP_MESSAGE),
            external_id: None,
            outputs: BTreeMap::new(),
            harmless: false,
            retry_after_seconds: None,
        }
    }

    /// The same with the provider's identifier.
    #[must_use]
    pub fn with_external_id(mut self, id: impl Into<String>) -> Self {
        self.external_id = Some(id.into());
        self
    }

    /// JSON of at most 4096 bytes. Too many outputs turn a success into `Invalid`: dropping some in silence would lie.
    pub fn to_termination_message(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        if text.len() <= MAX_RESULT {
            return text;
        }
        let too_large = StepResult::failed(
            FailureClass::Invalid,
            "ResultTooLarge",
            &format!("the outputs take {} bytes; at most {MAX_RESULT} fit in a result", text.len()),
        );
        serde_json::to_string(&too_large).unwrap_or_default()
    }
}

/// The last `max` bytes of a text, cut at a character boundary and marked with `…` where something was left out.
pub fn tail(text: &str, max: usize) -> String {
    const MARK: &str = "…";
    if text.len() <= max {
        return text.to_owned();
    }
    let mut start = text.len() - max.saturating_sub(MARK.len());
    while !text.is_char_boundary(start) {
        start += 1;
    }
    format!("{MARK}{}", &text[start..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_survives_its_encoding() {
        let result =
            StepResult::succeeded(BTreeMap::from([("address".into(), "10.0.0.7".into())])).with_external_id("m-1");
        let back: StepResult = serde_json::from_str(&result.to_termination_message()).unwrap();
        assert_eq!(back, result);
    }

    #[test]
    fn a_result_that_does_not_fit_says_so() {
        let result = StepResult::succeeded(BTreeMap::from([("big".into(), "x".repeat(5000))]));
        let message = result.to_termination_message();
        assert!(message.len() <= MAX_RESULT);
        let back: StepResult = serde_json::from_str(&message).unwrap();
        assert_eq!(back.class, Some(FailureClass::Invalid));
        assert_eq!(back.reason, "ResultTooLarge");
    }

    #[test]
    fn a_long_message_keeps_its_end_and_its_characters_whole() {
        let text = format!("{}E: Unable to locate package gräßlich", "ü".repeat(300));
        let cut = tail(&text, 64);
        assert!(cut.len() <= 64 && cut.starts_with('…') && cut.ends_with("gräßlich"), "{cut}");
    }
}
