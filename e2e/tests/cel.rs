//! What the API server itself says of our kinds: the rules in the schemas, and `kubectl explain`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use provisioning_e2e::{Case, DEADLINE, case, repository};

/// Plurals of all kinds.
const PLURALS: [&str; 6] = ["workspaces", "providerconfigs", "servers", "taskservs", "clusters", "batchworkflows"];

/// One file of `operator/api/tests/cel/PLURAL/RULE/`: `valid*.yaml` or `refused*.yaml`; see the README there.
struct Fixture {
    file: PathBuf,
    plural: String,
    /// The rule's message up to its first colon, as a slug.
    rule: String,
    /// What the object is until then, where the rule is about changes.
    old: Option<DynamicObject>,
    judged: DynamicObject,
    valid: bool,
}

fn name_of(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn sorted(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    Ok(sorted(folder)?.into_iter().filter(|path| path.is_dir()).collect())
}

/// The object of a file, for a namespace of the test.
fn object(file: &Path) -> Result<DynamicObject> {
    let context = || format!("{}", file.display());
    let text = std::fs::read_to_string(file).with_context(context)?;
    let mut object: DynamicObject = serde_saphyr::from_str(&text).with_context(context)?;
    object.metadata.namespace = None;
    Ok(object)
}

fn fixtures() -> Result<Vec<Fixture>> {
    let mut found = Vec::new();
    for plural in folders(&repository().join("operator/api/tests/cel"))? {
        ensure!(PLURALS.contains(&name_of(&plural)), "{} is no kind of ours", plural.display());
        for rule in folders(&plural)? {
            let old = rule.join("old.yaml");
            let old = old.exists().then(|| object(&old)).transpose()?;
            for file in sorted(&rule)? {
                let valid = match name_of(&file) {
                    "old.yaml" | "unreachable.md" => continue,
                    name if name.starts_with("valid") => true,
                    name if name.starts_with("refused") => false,
                    _ => bail!("{}: neither valid* nor refused*", file.display()),
                };
                found.push(Fixture {
                    plural: name_of(&plural).to_owned(),
                    rule: name_of(&rule).to_owned(),
                    old: old.clone(),
                    judged: object(&file)?,
                    valid,
                    file,
                });
            }
        }
    }
    ensure!(!found.is_empty(), "there are no fixtures");
    Ok(found)
}

fn slug(text: &str) -> String {
    let spaced: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { ' ' }).collect();
    spaced.split_whitespace().collect::<Vec<_>>().join("-")
}

impl Fixture {
    /// Asks the API server. Nothing is kept.
    async fn ask(&self, case: &Case) -> Result<kube::Result<()>> {
        let types = self.judged.types.as_ref().context("no kind")?;
        let gvk = GroupVersionKind::try_from(types)?;
        let resource = ApiResource::from_gvk_with_plural(&gvk, &self.plural);
        let api = Api::<DynamicObject>::namespaced_with(case.cluster.client.clone(), &case.namespace, &resource);
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let Some(old) = &self.old else { return Ok(api.create(&dry, &self.judged).await.map(drop)) };
        // There is no Workspace here, so the operator makes nothing of it.
        let name = api.create(&PostParams::default(), old).await?.metadata.name.context("no name")?;
        let mut next = self.judged.clone();
        let answer = loop {
            next.metadata.resource_version = api.get(&name).await?.metadata.resource_version;
            match api.replace(&name, &dry, &next).await {
                // The operator wrote its condition in between.
                Err(kube::Error::Api(status)) if status.code == 409 => continue,
                answer => break answer.map(drop),
            }
        };
        api.delete(&name, &Default::default()).await?;
        let gone = || async { Ok(if api.get_opt(&name).await?.is_some() { Err(name.clone()) } else { Ok(()) }) };
        case.until("the fixture's object gone", DEADLINE, gone).await?;
        Ok(answer)
    }

    /// What is wrong with the API server's answer.
    fn wrong(&self, answer: &kube::Result<()>) -> Option<String> {
        match (answer, self.valid) {
            (Ok(()), true) => None,
            (Err(kube::Error::Api(status)), false) if status.code == 422 => {
                let is_this_rule = slug(&status.message).contains(&self.rule);
                (!is_this_rule).then(|| format!("refused by another rule: {}", status.message))
            }
            (Ok(()), false) => Some("accepted".to_owned()),
            (Err(error), true) => Some(format!("refused: {error}")),
            (Err(error), false) => Some(format!("not refused by a rule: {error}")),
        }
    }
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn the_api_server_judges_every_cel_fixture_as_its_name_says() {
    case("the_api_server_judges_every_cel_fixture_as_its_name_says", |case: Case| async move {
        let mut wrong = Vec::new();
        let fixtures = fixtures()?;
        for fixture in &fixtures {
            let file = fixture.file.strip_prefix(repository()).unwrap_or(&fixture.file).display();
            let answer = fixture.ask(&case).await.with_context(|| format!("{file}"))?;
            wrong.extend(fixture.wrong(&answer).map(|what| format!("{file}: {what}")));
        }
        ensure!(wrong.is_empty(), "of {} fixtures:\n{}", fixtures.len(), wrong.join("\n"));
        case.rule(&format!("{} fixtures", fixtures.len()));
        Ok(())
    });
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn kubectl_explain_describes_every_field() {
    case("kubectl_explain_describes_every_field", |case: Case| async move {
        for plural in PLURALS {
            for path in [plural.to_owned(), format!("{plural}.spec"), format!("{plural}.status")] {
                let text = case.cluster.kubectl(&["explain", &path], "").await?.success()?;
                let (head, fields) =
                    text.split_once("FIELDS:").with_context(|| format!("{path} has no fields:\n{text}"))?;
                ensure!(!fields.trim().is_empty(), "{path} has no fields");
                ensure!(head.contains("DESCRIPTION:") && !head.contains("<empty>"), "{path} is not described:\n{head}");
                ensure!(!fields.contains("<no description>"), "a field is not described:\n{text}");
            }
        }
        Ok(())
    });
}
