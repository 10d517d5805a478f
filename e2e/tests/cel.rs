//! What the API server itself says of our kinds: the rules in the schemas, and `kubectl explain`.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use kube::core::GroupVersionKind;
use provisioning_e2e::{Case, DEADLINE, case, repository};

/// Plurals of all kinds.
const PLURALS: [&str; 5] = ["workspaces", "providerconfigs", "servers", "taskservs", "batchworkflows"];

/// One file of `operator/api/tests/cel/PLURAL/RULE/`: `valid*.yaml` or `refused*.yaml`. The last document is judged; one
/// before it is what the object was until then, so that it is an update that is judged.
struct Fixture {
    file: PathBuf,
    plural: String,
    before: Option<DynamicObject>,
    judged: DynamicObject,
    valid: bool,
}

impl Fixture {
    fn read(file: &Path, plural: &str) -> Result<Self> {
        let context = || format!("{}", file.display());
        let text = std::fs::read_to_string(file).with_context(context)?;
        let mut documents: Vec<DynamicObject> = serde_saphyr::from_multiple(&text).with_context(context)?;
        let judged = documents.pop().with_context(context)?;
        let before = documents.pop();
        ensure!(documents.is_empty(), "{}: more than two documents", file.display());
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let valid = match (name.starts_with("valid"), name.starts_with("refused")) {
            (true, _) => true,
            (_, true) => false,
            _ => bail!("{}: neither valid* nor refused*", file.display()),
        };
        Ok(Fixture { file: file.to_owned(), plural: plural.to_owned(), before, judged, valid })
    }

    /// Asks the API server. Nothing is kept.
    async fn judge(&self, case: &Case) -> Result<kube::Result<()>> {
        let types = self.judged.types.as_ref().context("no kind")?;
        let gvk = GroupVersionKind::try_from(types)?;
        let resource = ApiResource::from_gvk_with_plural(&gvk, &self.plural);
        let api = Api::<DynamicObject>::namespaced_with(case.cluster.client.clone(), &case.namespace, &resource);
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let here = |object: &DynamicObject| {
            let mut object = object.clone();
            object.metadata.namespace = None;
            object
        };
        let Some(before) = &self.before else {
            return Ok(api.create(&dry, &here(&self.judged)).await.map(drop));
        };
        // There is no Workspace here, so the operator makes nothing of it.
        let stored = api.create(&PostParams::default(), &here(before)).await?;
        let name = stored.metadata.name.clone().context("no name")?;
        let mut next = here(&self.judged);
        next.metadata.name.get_or_insert_with(|| name.clone());
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
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{}", folder.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}

fn fixtures() -> Result<Vec<Fixture>> {
    let mut found = Vec::new();
    for plural in folders(&repository().join("operator/api/tests/cel"))?.iter().filter(|path| path.is_dir()) {
        let name = plural.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        ensure!(PLURALS.contains(&name), "{} is no kind of ours", plural.display());
        for rule in folders(plural)?.iter().filter(|path| path.is_dir()) {
            for file in folders(rule)?.iter().filter(|file| file.extension().is_some_and(|it| it == "yaml")) {
                found.push(Fixture::read(file, name)?);
            }
        }
    }
    ensure!(!found.is_empty(), "there are no fixtures");
    Ok(found)
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn the_api_server_judges_every_cel_fixture_as_its_name_says() {
    case("the_api_server_judges_every_cel_fixture_as_its_name_says", |case: Case| async move {
        let mut wrong = Vec::new();
        let fixtures = fixtures()?;
        for fixture in &fixtures {
            let file = fixture.file.display();
            match (fixture.judge(&case).await.with_context(|| format!("{file}"))?, fixture.valid) {
                (Ok(()), true) => {}
                (Err(kube::Error::Api(status)), false) if status.code == 422 => {}
                (Ok(()), false) => wrong.push(format!("{file}: accepted")),
                (Err(error), true) => wrong.push(format!("{file}: refused: {error}")),
                (Err(error), false) => wrong.push(format!("{file}: not refused by a rule: {error}")),
            }
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
