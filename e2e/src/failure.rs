//! What is kept of a failed test: its objects, events, logs.

use std::path::Path;

use crate::case::Case;

/// Writes all that may tell the cause to `target/e2e-failure/NAME/`. Never fails: it has only the failure to tell of.
pub(crate) async fn dump(case: &Case) {
    let folder = crate::repository().join("target/e2e-failure").join(&case.name);
    if let Err(error) = tokio::fs::create_dir_all(&folder).await {
        eprintln!("{}: {error}", folder.display());
        return;
    }
    let (namespace, site, system) = (&case.namespace, &case.cluster.site, &case.cluster.system);
    let label = format!("provisioning.dev/owner-namespace={namespace}");
    let commands: &[(&str, &[&str])] = &[
        ("objects.txt", &["-n", namespace, "get", "provisioning,jobs,pods,leases,configmaps", "-o", "wide"]),
        ("objects.yaml", &["-n", namespace, "get", "provisioning,jobs,pods,leases", "-o", "yaml"]),
        (
            "logs-of-failed-runs.yaml",
            &["-n", namespace, "get", "configmaps", "-l", "provisioning.dev/log-of", "-o", "yaml"],
        ),
        ("events.txt", &["-n", namespace, "get", "events", "--sort-by=.lastTimestamp"]),
        ("namespace.yaml", &["get", "namespace", namespace, "-o", "yaml"]),
        ("site.yaml", &["-n", site, "get", "pods", "-l", &label, "-o", "yaml"]),
        ("site-events.txt", &["-n", site, "get", "events", "--sort-by=.lastTimestamp"]),
        ("operator.log", &["-n", system, "logs", "deployment/provisioning-operator", "--tail=500", "--timestamps"]),
        ("pods.log", &["-n", namespace, "logs", "-l", "provisioning.dev/owner-uid", "--tail=50", "--prefix"]),
    ];
    for (file, arguments) in commands {
        let text = match case.cluster.kubectl(arguments, "").await {
            Ok(output) => format!("{}{}", output.stdout, output.stderr),
            Err(error) => format!("{error:?}"),
        };
        write(&folder.join(file), &text).await;
    }
    eprintln!("{}: see {}", case.name, folder.display());
}

async fn write(file: &Path, text: &str) {
    if let Err(error) = tokio::fs::write(file, text).await {
        eprintln!("{}: {error}", file.display());
    }
}
