//! What was asked of the API server, from its audit log.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::cluster::Cluster;

/// One answered request.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    /// `create`, `update`, `patch`, `get`…
    pub verb: String,
    /// Who asked, for example `system:serviceaccount:NAMESPACE:provisioning-executor`.
    pub user: String,
    /// The program's name for itself.
    pub user_agent: String,
    /// Plural of the kind.
    pub resource: String,
    /// `status`, `exec`…, empty for the object itself.
    pub subresource: String,
    /// Namespace of the object.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
    /// HTTP status of the answer.
    pub code: i64,
    /// When it was received, RFC 3339.
    pub time: String,
}

impl AuditEvent {
    /// Whether the operator asked.
    pub fn is_operators(&self) -> bool {
        self.user.ends_with(":provisioning-operator")
    }

    /// Whether it was to change anything.
    pub fn is_write(&self) -> bool {
        !["get", "list", "watch"].contains(&self.verb.as_str())
    }

    /// Verb and resource, such as `update servers/status`.
    pub fn what(&self) -> String {
        let AuditEvent { verb, resource, subresource, .. } = self;
        let slash = if subresource.is_empty() { "" } else { "/" };
        format!("{verb} {resource}{slash}{subresource}")
    }
}

/// How many requests there were of each verb and resource, the most first.
pub fn tally<'a>(events: impl IntoIterator<Item = &'a AuditEvent>) -> Vec<(String, usize)> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for event in events {
        *counts.entry(event.what()).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    request_received_timestamp: String,
}

#[derive(Deserialize)]
struct User {
    /// Absent where nobody was recognised: the token of a Pod that is gone.
    #[serde(default)]
    username: String,
}

#[derive(Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[derive(Default)]
struct ObjectRef {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct ResponseStatus {
    code: i64,
}

impl Cluster {
    /// The answered requests that `wanted` picks, in the log's order. `word` is a text that the line holds, such as a
    /// namespace: only those lines are parsed.
    ///
    /// # Errors
    /// A log that can't be read, or a line that is no audit event.
    pub async fn audit(&self, word: &str, wanted: impl Fn(&AuditEvent) -> bool) -> Result<Vec<AuditEvent>> {
        let path = &self.audit_log;
        let text = tokio::fs::read_to_string(path).await.with_context(|| format!("{}", path.display()))?;
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut events = Vec::new();
        for line in whole.lines().filter(|line| line.contains(word)) {
            let line: Line = serde_json::from_str(line).with_context(|| line.to_owned())?;
            let ObjectRef { resource, subresource, namespace, name } = line.object_ref.unwrap_or_default();
            let event = AuditEvent {
                verb: line.verb,
                user: line.user.username,
                user_agent: line.user_agent,
                resource,
                subresource,
                namespace,
                name,
                code: line.response_status.map_or(0, |status| status.code),
                time: line.request_received_timestamp,
            };
            if line.stage == "ResponseComplete" && wanted(&event) {
                events.push(event);
            }
        }
        Ok(events)
    }
}
