//! The columns of tables: those that `kubectl get` shows, from the same definitions.

use jiff::Timestamp;
use provisioning_api::conditions::types;

use crate::item::Item;
use crate::kinds::Kind;
use crate::output::Colour;
use crate::table::Cell;
use crate::times::span;

/// What stands in one column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Column {
    Ready,
    Reason,
    Message,
    Steps,
    Age,
    /// A text at a path of the JSON.
    At(&'static str),
}

/// Header, column, and whether it is for `-o wide` only.
type Row = (&'static str, Column, bool);

fn columns(kind: Kind) -> &'static [Row] {
    const READY: Row = ("READY", Column::Ready, false);
    const STEPS: Row = ("STEPS", Column::Steps, false);
    const REASON: Row = ("REASON", Column::Reason, false);
    const MESSAGE: Row = ("MESSAGE", Column::Message, true);
    const AGE: Row = ("AGE", Column::Age, false);
    match kind {
        Kind::Workspace => &[
            READY,
            ("SERVERS", Column::At("/status/objects/servers"), false),
            REASON,
            MESSAGE,
            ("EPOCH", Column::At("/status/epoch"), true),
            AGE,
        ],
        Kind::ProviderConfig => &[
            ("TYPE", Column::At("/spec/type"), false),
            READY,
            REASON,
            MESSAGE,
            ("SITE", Column::At("/spec/site"), true),
            AGE,
        ],
        Kind::BatchWorkflow => &[READY, STEPS, REASON, MESSAGE, AGE],
        Kind::Cluster => {
            &[("ENDPOINT", Column::At("/status/endpoints/0/addresses/0"), false), READY, STEPS, REASON, MESSAGE, AGE]
        }
        Kind::Server => &[
            ("ADDRESS", Column::At("/status/addresses/0/address"), false),
            READY,
            STEPS,
            REASON,
            ("PROVIDER-ID", Column::At("/status/providerID"), true),
            MESSAGE,
            AGE,
        ],
        Kind::Taskserv => &[
            ("EXTENSION", Column::At("/spec/extension/name"), false),
            READY,
            STEPS,
            REASON,
            ("SERVERS", Column::At("/spec/servers"), true),
            MESSAGE,
            AGE,
        ],
    }
}

fn shown(kind: Kind, wide: bool) -> impl Iterator<Item = &'static Row> {
    columns(kind).iter().filter(move |(_, _, only_wide)| wide || !only_wide)
}

/// The headers, without the name.
pub(crate) fn headers(kind: Kind, wide: bool) -> Vec<&'static str> {
    shown(kind, wide).map(|(header, ..)| *header).collect()
}

/// The cells, without the name.
pub(crate) fn cells(item: &Item, wide: bool, now: Timestamp) -> Vec<Cell> {
    shown(item.kind, wide).map(|(_, column, _)| cell(item, *column, now)).collect()
}

fn cell(item: &Item, column: Column, now: Timestamp) -> Cell {
    let ready = item.condition(types::READY);
    let text = |text: Option<String>| Cell::from(text.unwrap_or_default());
    match column {
        Column::Ready => ready_cell(item),
        Column::Reason if item.is_deleting() && ready.is_none() => Cell::from("Deleting"),
        Column::Reason => text(ready.map(|ready| ready.reason.clone())),
        Column::Message => text(ready.map(|ready| ready.message.clone())),
        Column::Steps => text(item.progress().map(str::to_owned)),
        Column::Age => text(item.created().map(|created| span(created, now))),
        Column::At(pointer) => text(item.text(pointer)),
    }
}

/// `Ready`, in the colour of how it stands.
pub(crate) fn ready_cell(item: &Item) -> Cell {
    let Some(ready) = item.condition(types::READY) else { return Cell::from("") };
    Cell::coloured(ready.status.clone(), standing_colour(item))
}

/// Green: Ready; red: nothing more happens by itself; yellow: on its way.
pub(crate) fn standing_colour(item: &Item) -> Colour {
    match (item.is_ready(), item.stalled()) {
        (true, _) => Colour::Green,
        (false, Some(_)) => Colour::Red,
        (false, None) => Colour::Yellow,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_those_of_the_definitions() {
        for kind in Kind::ALL {
            let version = kind.crd().unwrap().spec.versions.remove(0);
            let printed = version.additional_printer_columns.unwrap();
            let expected: Vec<(String, bool)> =
                printed.iter().map(|column| (column.name.to_uppercase(), column.priority == Some(1))).collect();
            let own: Vec<(String, bool)> =
                columns(kind).iter().map(|(header, _, wide)| ((*header).to_owned(), *wide)).collect();
            assert_eq!(own, expected, "{kind}");
        }
    }
}
