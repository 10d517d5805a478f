//! The files of a new extension, from templates. `@NAME@` stands for its name, `@SCHEMA@` for its name in KCL.

/// A file to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct File {
    /// Relative to the extension's folder.
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) executable: bool,
}

/// Templates by path. `common.nu` is that of the extensions of this repository.
const TEMPLATES: [(&str, &str); 10] = [
    ("manifest.yaml", include_str!("scaffold/manifest.yaml")),
    ("schema.json", include_str!("scaffold/schema.json")),
    ("scripts/install.nu", include_str!("scaffold/scripts/install.nu")),
    ("scripts/check.nu", include_str!("scaffold/scripts/check.nu")),
    ("scripts/uninstall.nu", include_str!("scaffold/scripts/uninstall.nu")),
    ("scripts/service.nu", include_str!("scaffold/scripts/service.nu")),
    ("scripts/common.nu", include_str!("../../../taskservs/lib/common.nu")),
    ("kcl/@NAME@.k", include_str!("scaffold/kcl/parameters.k")),
    ("docs/README.md", include_str!("scaffold/docs/README.md")),
    ("tests/case.yaml", include_str!("scaffold/tests/case.yaml")),
];
const SPEAK: (&str, &str) = ("tests/speak", include_str!("scaffold/tests/speak"));

/// The files of an extension of this name.
pub(crate) fn files(name: &str) -> Vec<File> {
    let schema = schema_name(name);
    let fill = |text: &str| text.replace("@NAME@", name).replace("@SCHEMA@", &schema);
    let file = |(path, text): (&str, &str), executable| File { path: fill(path), text: fill(text), executable };
    TEMPLATES.into_iter().map(|template| file(template, false)).chain([file(SPEAK, true)]).collect()
}

/// A name in KCL: `node-exporter` becomes `NodeExporter`. An identifier does not begin with a digit.
fn schema_name(name: &str) -> String {
    let words = name.split('-').map(|word| {
        let mut letters = word.chars();
        letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
    });
    let joined: String = words.collect();
    if joined.starts_with(|first: char| first.is_ascii_digit()) { format!("Extension{joined}") } else { joined }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_the_templates_is_left() {
        for file in files("answer") {
            for token in ["@NAME@", "@SCHEMA@"] {
                assert!(!file.text.contains(token) && !file.path.contains(token), "{}: {token}", file.path);
            }
            assert!(file.text.lines().all(|line| line.chars().count() <= 120), "{}", file.path);
        }
    }

    #[test]
    fn a_name_becomes_one_of_kcl() {
        assert_eq!(schema_name("node-exporter"), "NodeExporter");
        assert_eq!(schema_name("3proxy"), "Extension3proxy");
    }
}
