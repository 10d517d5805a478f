//! The examples of the documentation: the API server takes each, and the operator finds nothing wrong with it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use provisioning_e2e::{Case, DEADLINE, case, repository};

/// Kinds whose examples need no machine; all others are held by `spec.suspend`.
const GROUND: [&str; 2] = ["workspace", "providerconfig"];

/// The example of each kind that this release has, in an order in which they can refer to each other.
fn examples() -> Result<Vec<(&'static str, PathBuf)>> {
    let order = ["workspace", "providerconfig", "server", "taskserv", "cluster", "batchworkflow"];
    let folder = repository().join("crds");
    let definitions = std::fs::read_dir(&folder).with_context(|| format!("{}", folder.display()))?.count();
    let there = order.into_iter().filter(|kind| folder.join(format!("{kind}s.yaml")).exists());
    let found: Vec<_> =
        there.map(|kind| (kind, repository().join(format!("docs/kinds/examples/{kind}.yaml")))).collect();
    ensure!(found.len() == definitions, "{definitions} kinds, and examples of {found:?}");
    Ok(found)
}

/// Waits until the object gives this reason. What is Suspended has a plan without a mistake, and nothing of it is started.
async fn comes_to(case: &Case, file: &Path, reason: &str) -> Result<()> {
    let ready = ".status.conditions[?(@.type==\"Ready\")]";
    let path = format!("jsonpath={{{ready}.reason}} {{{ready}.message}}");
    let look = || async {
        let said = case.kubectl(&["get", "-f", &file.display().to_string(), "-o", &path], "").await?.success()?;
        Ok(if said.split_whitespace().next() == Some(reason) { Ok(()) } else { Err(said) })
    };
    case.until(reason, DEADLINE, look).await
}

#[test]
#[ignore = "needs a cluster: scripts/e2e"]
fn every_example_of_the_documentation_is_taken_and_can_be_planned() {
    case("every_example_of_the_documentation_is_taken_and_can_be_planned", |case: Case| async move {
        for (kind, file) in examples()? {
            let text = std::fs::read_to_string(&file).with_context(|| format!("{}", file.display()))?;
            case.kubectl(&["apply", "--server-side", "--dry-run=server", "-f", "-"], &text).await?.success()?;
            let is_ground = GROUND.contains(&kind);
            let held = text.replace("\n  suspend: false", "\n  suspend: true");
            ensure!(held != text, "{} says nothing of suspend", file.display());
            let (text, reason) = if is_ground { (text, "Succeeded") } else { (held, "Suspended") };
            case.kubectl(&["apply", "--server-side", "-f", "-"], &text).await?.success()?;
            comes_to(&case, &file, reason).await.with_context(|| format!("{}", file.display()))?;
            case.rule(kind);
        }
        ensure!(case.site_pods().await?.is_empty(), "a machine was made");
        Ok(())
    });
}
