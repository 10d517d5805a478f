//! Tables as kubectl prints them: columns three blanks apart, no lines.

use crate::output::{Colour, Style};
use crate::safe::one_line;

/// A cell: text that is one line whoever wrote it, and its colour on a terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: one_line(&text.into()), colour: None }
    }
}

impl Cell {
    pub(crate) fn coloured(text: impl Into<String>, colour: Colour) -> Self {
        Self { text: one_line(&text.into()), colour: Some(colour) }
    }
}

/// A header and rows of equal length.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    rows: Vec<Vec<Cell>>,
}

impl Table {
    pub(crate) fn new(header: impl IntoIterator<Item = impl Into<Cell>>) -> Self {
        let mut table = Self::default();
        table.add(header);
        table
    }

    pub(crate) fn add(&mut self, row: impl IntoIterator<Item = impl Into<Cell>>) {
        self.rows.push(row.into_iter().map(Into::into).collect());
    }

    /// Lines without blanks at their ends, each with `indent` before it.
    pub(crate) fn render(&self, indent: &str, style: Style) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.text.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let last = row.iter().rposition(|cell| !cell.text.is_empty()).map_or(0, |position| position + 1);
            text.push_str(indent);
            for (position, cell) in row.iter().take(last).enumerate() {
                text.push_str(&cell.colour.map_or_else(|| cell.text.clone(), |colour| style.paint(colour, &cell.text)));
                if position + 1 < last {
                    let missing = widths[position] - cell.text.chars().count();
                    text.push_str(&" ".repeat(missing + 3));
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let mut table = Table::new(["NAME", "READY", "AGE"]);
        table.add([Cell::from("heron"), Cell::coloured("True", Colour::Green), "3s".into()]);
        table.add(["é", "", ""]);
        assert_eq!(table.render("  ", Style::PLAIN), "  NAME    READY   AGE\n  heron   True    3s\n  é\n");
        let mut wrapped = Table::new(["MESSAGE", "AGE"]);
        wrapped.add([Cell::coloured("a\nb\u{1b}[2J", Colour::Red), "3s".into()]);
        assert_eq!(wrapped.render("", Style::PLAIN), "MESSAGE    AGE\na b^[[2J   3s\n");
        let colour = Style { colour: true, ..Style::PLAIN };
        assert!(table.render("", colour).contains("heron   \u{1b}[32mTrue\u{1b}[0m    3s\n"));
    }
}
