//! What can go wrong in a pass. A failed pass is repeated; nothing here ends a step.

use std::time::Duration;

use kube::core::Status;

/// An error of a pass: verb and object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A request to the API server failed.
    #[error("failed to {verb} {object}")]
    Request {
        /// For example `create`.
        verb: &'static str,
        /// For example `Job first/prov-…`.
        object: String,
        /// The client's error.
        #[source]
        source: Box<kube::Error>,
    },
    /// The object changed since it was read: everything stops, and the change triggers the next pass.
    #[error("{object} changed since it was read")]
    Conflict {
        /// Which object.
        object: String,
    },
    /// A later leader has raised the epoch: this process must end.
    #[error("the Workspace in {namespace} has epoch {epoch}, of a later leader than this process")]
    Superseded {
        /// Namespace.
        namespace: String,
        /// Its epoch.
        epoch: i64,
    },
    /// The API server did not answer a write in time; it may have been applied.
    #[error("the write of {object} was not answered in time")]
    Unanswered {
        /// Which object.
        object: String,
    },
    /// The status was written by a newer operator.
    #[error("status.schema of {object} is {format}, newer than this operator knows: upgrade it")]
    TooNew {
        /// Which object.
        object: String,
        /// Its number.
        format: i32,
    },
    /// What the API server answered is no object of this operator's, or too large.
    #[error("the answer about {object} cannot be read: {error}")]
    Unreadable {
        /// Which object.
        object: String,
        /// Path and words.
        error: String,
    },
    /// A pass panicked.
    #[error("a pass ended in a panic: {0}")]
    Panicked(String),
    /// Our own object cannot be written as JSON.
    #[error("failed to encode {object}")]
    Encode {
        /// Which object.
        object: String,
        /// serde's error.
        #[source]
        source: serde_json::Error,
    },
    /// An SSH key pair could not be made.
    #[error("failed to generate the SSH key of workspace {workspace}: {reason}")]
    GenerateKey {
        /// Namespace.
        workspace: String,
        /// Why.
        reason: String,
    },
}

/// What follows an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Somebody else wrote first; the watch brings the news.
    Conflict,
    /// The API server is busy or away.
    Transient,
    /// The API server will say the same again until something changes.
    Permanent,
}

impl Error {
    /// Wraps a client error; a 409 on a write with a resourceVersion or uid is a [`Error::Conflict`].
    pub fn request(verb: &'static str, object: impl Into<String>, source: kube::Error) -> Self {
        let object = object.into();
        match source {
            kube::Error::Api(status) if status.code == 409 && matches!(verb, "update" | "patch" | "delete") => {
                Error::Conflict { object }
            }
            source => Error::Request { verb, object, source: Box::new(source) },
        }
    }

    /// Class of the error; also the metric's label.
    pub fn category(&self) -> Category {
        match self {
            Error::Conflict { .. } | Error::Superseded { .. } => Category::Conflict,
            Error::Request { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if is_too_large(status) => Category::Permanent,
                kube::Error::Api(status) if (400..500).contains(&status.code) && status.code != 429 => {
                    Category::Permanent
                }
                _ => Category::Transient,
            },
            Error::Unanswered { .. } => Category::Transient,
            Error::Encode { .. }
            | Error::GenerateKey { .. }
            | Error::Panicked(_)
            | Error::TooNew { .. }
            | Error::Unreadable { .. } => Category::Permanent,
        }
    }

    /// Whether the object that it is about is gone.
    pub fn is_about_nothing(&self) -> bool {
        let Error::Request { source, .. } = self else { return false };
        matches!(source.as_ref(), kube::Error::Api(status) if status.code == 404)
    }

    /// When the pass is repeated if no watch event comes first.
    pub fn retry_after(&self) -> Duration {
        match self.category() {
            Category::Conflict => Duration::from_millis(250),
            Category::Transient => Duration::from_secs(2),
            Category::Permanent => Duration::from_secs(15),
        }
    }

    /// The whole chain in one line, for logs.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            // The API server's own words, not the client's rendering of them.
            let boxed = error.downcast_ref::<Box<kube::Error>>().map(AsRef::as_ref);
            if let Some(kube::Error::Api(status)) = boxed.or_else(|| error.downcast_ref()) {
                text.push_str(&status.message);
                break;
            }
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Whether the store has no room for what was to be written: its own words, for which the API server has code 500.
pub fn is_too_large(status: &Status) -> bool {
    status.message.contains("too large")
}

impl Category {
    /// Value of the metric label `category`.
    pub fn label(self) -> &'static str {
        match self {
            Category::Conflict => "conflict",
            Category::Transient => "transient",
            Category::Permanent => "permanent",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn category(verb: &'static str, code: u16) -> Category {
        let status = Status::failure("words", "Reason").with_code(code);
        Error::request(verb, "Server marsh/heron", kube::Error::Api(status.boxed())).category()
    }

    #[test]
    fn a_write_on_what_has_changed_since_is_a_conflict_and_a_name_that_is_taken_is_not() {
        for verb in ["update", "patch", "delete"] {
            assert_eq!(category(verb, 409), Category::Conflict, "{verb}");
            assert_eq!(category(verb, 403), Category::Permanent, "{verb}");
        }
        assert_eq!(category("create", 409), Category::Permanent);
        assert_eq!(category("update", 500), Category::Transient);
        let status = Status::failure("etcdserver: request is too large", "").with_code(500);
        let full = Error::request("update", "Server marsh/heron", kube::Error::Api(status.boxed()));
        assert_eq!(full.category(), Category::Permanent);
    }
}
