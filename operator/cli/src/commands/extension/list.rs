//! `provisioning extension list`: one request, or none.

use clap::Args;
use serde_json::{Value, json};

use super::Place;
use crate::cluster::ClusterArguments;
use crate::error::Error;
use crate::exit::Exit;
use crate::offers::Offer;
use crate::output::{Colour, Format, Style, print};
use crate::table::{Cell, Table};

/// Arguments of `extension list`.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    place: Place,
    /// How to show them
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

/// Lists extensions.
pub(super) async fn run(arguments: Arguments, cluster: &ClusterArguments, style: Style) -> Result<Exit, Error> {
    let offers = arguments.place.offers(cluster).await?;
    print(&shown(&offers, arguments.output, style)?);
    Ok(Exit::Done)
}

fn shown(offers: &[Offer], format: Option<Format>, style: Style) -> Result<String, Error> {
    let all = || -> Value {
        let items: Vec<Value> = offers.iter().map(Offer::json).collect();
        json!({"apiVersion": "v1", "kind": "List", "items": items})
    };
    Ok(match format {
        Some(Format::Json) => format!("{}\n", serde_json::to_string_pretty(&all())?),
        Some(Format::Yaml) => serde_saphyr::to_string(&all())?,
        Some(Format::Name) => {
            let mut names: Vec<String> = offers.iter().map(|offer| format!("extension/{}\n", offer.name)).collect();
            names.dedup();
            names.concat()
        }
        None | Some(Format::Wide) => table(offers, format.is_some()).render("", style),
    })
}

fn table(offers: &[Offer], wide: bool) -> Table {
    let digest = |text: &str| wide.then(|| Cell::from(text));
    let header = ["NAME", "VERSION", "SOURCE"].map(Cell::from).into_iter().chain(digest("DIGEST"));
    let mut table = Table::new(header.chain([Cell::from("DESCRIPTION")]));
    for offer in offers {
        let description = match &offer.bundle {
            Ok(_) => Cell::from(offer.description()),
            Err(_) => Cell::coloured(offer.description(), Colour::Red),
        };
        let row = [offer.name.clone(), offer.version.clone(), offer.sources().join(", ")].map(Cell::from);
        table.add(row.into_iter().chain(digest(&offer.digest)).chain([description]));
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::offers::tests::bundle;

    fn two() -> Vec<Offer> {
        let offer = |version: &str, built_in: bool, config_map: Option<&str>| {
            let bundle = bundle("answer", version, "");
            Offer {
                name: "answer".into(),
                version: version.into(),
                digest: "sha256:1".into(),
                built_in,
                config_map: config_map.map(str::to_owned),
                bundle: Ok(bundle),
            }
        };
        vec![offer("0.1.0", true, Some("ext-answer-1")), offer("0.2.0", false, Some("ext-answer-2"))]
    }

    #[test]
    fn a_list_says_where_each_is() {
        assert_eq!(
            shown(&two(), None, Style::PLAIN).unwrap(),
            "NAME     VERSION   SOURCE              DESCRIPTION\n\
             answer   0.1.0     built-in, cluster   For a test\n\
             answer   0.2.0     cluster             For a test\n"
        );
        let wide = shown(&two(), Some(Format::Wide), Style::PLAIN).unwrap();
        assert!(wide.starts_with("NAME     VERSION   SOURCE              DIGEST     DESCRIPTION\n"), "{wide}");
        assert_eq!(shown(&two(), Some(Format::Name), Style::PLAIN).unwrap(), "extension/answer\n");
    }

    #[test]
    fn json_and_yaml_hold_the_manifest_and_where_it_is() {
        let json: Value = serde_json::from_str(&shown(&two(), Some(Format::Json), Style::PLAIN).unwrap()).unwrap();
        let yaml: Value = serde_saphyr::from_str(&shown(&two(), Some(Format::Yaml), Style::PLAIN).unwrap()).unwrap();
        assert_eq!(json, yaml);
        let first = &json["items"][0];
        assert_eq!((&first["name"], &first["sources"]), (&json!("answer"), &json!(["built-in", "cluster"])));
        assert_eq!(first["timeoutSeconds"]["install"], 30);
    }
}
