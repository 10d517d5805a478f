//! What was asked of the API server, from its audit log.

use std::collections::{BTreeMap, BTreeSet};

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

/// What `creates` made, in their order: those answered 201, and the first of those answered 504 where none made the same
/// object. A caller that dies in mid-request is answered 504, whether or not the object was made; that it is there, others say.
pub fn made(creates: Vec<AuditEvent>) -> Vec<AuditEvent> {
    let key = |event: &AuditEvent| (event.resource.clone(), event.namespace.clone(), event.name.clone());
    let mut known: BTreeSet<_> = creates.iter().filter(|event| event.code == 201).map(key).collect();
    creates.into_iter().filter(|event| event.code == 201 || event.code == 504 && known.insert(key(event))).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn create(name: &str, code: i64) -> AuditEvent {
        let text = |text: &str| text.to_owned();
        AuditEvent {
            verb: text("create"),
            user: text("operator"),
            user_agent: String::new(),
            resource: text("servers"),
            subresource: String::new(),
            namespace: text("shop"),
            name: text(name),
            code,
            time: String::new(),
        }
    }

    #[test]
    fn a_create_that_was_cut_off_counts_once_where_no_other_made_the_object() {
        let made =
            |creates: &[(&str, i64)]| made(creates.iter().map(|(name, code)| create(name, *code)).collect()).len();
        assert_eq!(made(&[("heron", 201)]), 1);
        // Made twice is seen, with a cut in between or without.
        assert_eq!(made(&[("heron", 201), ("heron", 201)]), 2);
        assert_eq!(made(&[("heron", 201), ("heron", 504), ("heron", 201)]), 2);
        // The cut one made nothing.
        assert_eq!(made(&[("heron", 504), ("heron", 201)]), 1);
        // It made it: the next one finds it there.
        assert_eq!(made(&[("heron", 504), ("heron", 409)]), 1);
        assert_eq!(made(&[("heron", 504), ("heron", 504), ("heron", 409)]), 1);
        assert_eq!(made(&[("heron", 403), ("heron", 409)]), 0);
        assert_eq!(made(&[("heron", 201), ("tern", 504)]), 2);
    }
}
