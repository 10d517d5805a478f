//! Secret parameters: read from the mounted files, told to the script, and kept out of everything else.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use provisioning_api::taskserv::SecretReference;
use provisioning_sdk::request::secret_file;

use crate::failure::Failure;

/// Longest value, bytes.
const MAX_VALUE: u64 = 16 * 1024;
/// Shortest text that is looked for: what is shorter is in too many words to hide anything.
const MIN_REDACTED: usize = 4;
/// What stands in the place of a secret.
const REDACTED: &str = "[redacted]";

/// The values, by parameter.
#[derive(Default)]
pub struct Secrets {
    values: BTreeMap<String, String>,
}

impl Secrets {
    /// Reads the files that the kubelet mounted below `folder`.
    ///
    /// # Errors
    /// [`Failure::MissingSecret`] where a Secret or its key is not there; [`Failure::BadSecret`] where its value is no
    /// text or too long.
    pub fn read(folder: &Path, references: &BTreeMap<String, SecretReference>) -> Result<Self, Failure> {
        let mut values = BTreeMap::new();
        for (parameter, reference) in references {
            let SecretReference { secret_name, key } = reference;
            let file = secret_file(folder, parameter);
            let missing = |_| Failure::MissingSecret {
                parameter: parameter.clone(),
                secret: secret_name.clone(),
                key: key.clone(),
            };
            let mut value = String::new();
            let mut reader = std::fs::File::open(&file).map_err(missing)?.take(MAX_VALUE + 1);
            let is_text = reader.read_to_string(&mut value).is_ok();
            if !is_text || value.len() > usize::try_from(MAX_VALUE).unwrap_or(usize::MAX) {
                return Err(Failure::BadSecret { parameter: parameter.clone(), secret: secret_name.clone() });
            }
            values.insert(parameter.clone(), value);
        }
        Ok(Secrets { values })
    }

    /// The values, for the script's request and nothing else.
    pub fn values(&self) -> &BTreeMap<String, String> {
        &self.values
    }

    /// Text without any of the values, or any line of one, plain or as JSON writes it. Blanks around them do not count: scripts
    /// trim what they read, and lines of a script's output are trimmed.
    pub fn redact(&self, text: &str) -> String {
        let parts = self.values.values().flat_map(|value| value.lines().chain([value.as_str()]));
        let parts = parts.flat_map(|part| [part, part.trim()]);
        let mut hidden: Vec<String> = parts.flat_map(|part| [part.to_owned(), in_json(part)]).collect();
        hidden.retain(|part| part.len() >= MIN_REDACTED);
        // The longest first: a value may hold another one.
        hidden.sort_by(|one, other| (other.len(), other).cmp(&(one.len(), one)));
        hidden.dedup();
        hidden.iter().fold(text.to_owned(), |text, part| text.replace(part.as_str(), REDACTED))
    }

    /// The end of a longer text: of its first line, which is cut, nothing is told, because a secret could be cut as well.
    pub fn redact_tail(&self, text: &str, is_cut: bool) -> String {
        let rest = text.split_once('\n').map_or("", |(_, rest)| rest);
        self.redact(if is_cut && !self.values.is_empty() { rest } else { text })
    }

    /// Outputs as they are, if none holds a secret.
    ///
    /// # Errors
    /// Text for people, with the output's name.
    pub fn refuse_in(&self, outputs: BTreeMap<String, String>) -> Result<BTreeMap<String, String>, String> {
        let holds_one = |text: &str| self.redact(text) != text;
        match outputs.iter().find(|(name, value)| holds_one(value) || holds_one(name)) {
            Some((name, _)) => Err(format!("output {name} holds a secret parameter; outputs can be read by everybody")),
            None => Ok(outputs),
        }
    }
}

/// A text as it stands in JSON, without the quotes.
fn in_json(text: &str) -> String {
    let written = serde_json::Value::from(text).to_string();
    written[1..written.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[(&str, &str)]) -> Secrets {
        Secrets { values: values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect() }
    }

    #[test]
    fn no_secret_and_no_line_of_one_is_said() {
        let all = secrets(&[("password", "heron-4711"), ("key", "BEGIN\nabcdef\nEND"), ("longer", "heron-4711-nest")]);
        assert_eq!(all.redact("login heron-4711 failed"), "login [redacted] failed");
        assert_eq!(all.redact("heron-4711-nest"), "[redacted]");
        assert_eq!(all.redact("bad line abcdef"), "bad line [redacted]");
        assert_eq!(all.redact("the END"), "the END");
        let all = secrets(&[("password", "pa\"ss\\x9\t")]);
        assert_eq!(all.redact(r#"{"password":"pa\"ss\\x9\t"}"#), r#"{"password":"[redacted]"}"#);
    }

    #[test]
    fn a_line_of_a_secret_is_not_said_without_its_blanks_either() {
        let all = secrets(&[("account", "{\n  \"key\": \"MIIE-heron\",\n}"), ("spacey", " heron-77\t\n")]);
        assert_eq!(all.redact("\"key\": \"MIIE-heron\","), "[redacted]");
        assert_eq!(all.redact("got   \"key\": \"MIIE-heron\",."), "got [redacted].");
        assert_eq!(all.redact(r#"{"line":"\"key\": \"MIIE-heron\","}"#), r#"{"line":"[redacted]"}"#);
        assert_eq!(all.redact("login heron-77 failed"), "login [redacted] failed");
        let outputs = BTreeMap::from([("leak".to_owned(), "heron-77".to_owned())]);
        assert!(all.refuse_in(outputs).is_err());
    }

    #[test]
    fn a_line_that_is_cut_is_not_told_where_there_are_secrets() {
        let all = secrets(&[("password", "heron-4711")]);
        assert_eq!(all.redact_tail("4711 is wrong\nlogin failed", true), "login failed");
        assert_eq!(all.redact_tail("4711 is wrong", true), "");
        assert_eq!(all.redact_tail("nest 4711\nlogin failed", false), "nest 4711\nlogin failed");
        assert_eq!(Secrets::default().redact_tail("half a line\nend", true), "half a line\nend");
    }

    #[test]
    fn an_output_with_a_secret_is_refused() {
        let all = secrets(&[("password", "heron-4711")]);
        let outputs = |value: &str| BTreeMap::from([("url".to_owned(), value.to_owned())]);
        assert!(all.refuse_in(outputs("postgres://u:heron-4711@h")).unwrap_err().contains("output url"));
        assert!(all.refuse_in(outputs("postgres://h")).is_ok());
        let named = BTreeMap::from([("xheron-4711".to_owned(), String::new())]);
        assert!(all.refuse_in(named).is_err());
    }

    #[test]
    fn a_secret_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let reference = SecretReference { secret_name: "taskserv-nest".into(), key: "password".into() };
        let wanted = BTreeMap::from([("password".to_owned(), reference)]);
        let error = Secrets::read(folder.path(), &wanted).err().unwrap().to_string();
        assert!(error.contains("spec.secretParameters.password") && error.contains("taskserv-nest"), "{error}");
        let file = secret_file(folder.path(), "password");
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, "heron-4711").unwrap();
        assert_eq!(Secrets::read(folder.path(), &wanted).unwrap().values()["password"], "heron-4711");
        std::fs::write(&file, "x".repeat(16 * 1024 + 1)).unwrap();
        assert!(matches!(Secrets::read(folder.path(), &wanted), Err(Failure::BadSecret { .. })));
    }
}
