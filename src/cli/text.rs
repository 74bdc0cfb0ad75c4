//! How the commands write what a router said.

use std::fmt::Display;
use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use crate::model::Share;

/// A table as kubectl writes them: no lines, no colours, two spaces between columns.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_content_arrangement(ContentArrangement::Disabled);
    table.force_no_tty();
    table.set_header(header.iter().copied());
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table
}

/// Lets these columns, which hold numbers, end below each other.
pub(super) fn align_right(table: &mut Table, columns: impl IntoIterator<Item = usize>) {
    for index in columns {
        if let Some(column) = table.column_mut(index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
}

/// Writes a table without spaces at the ends of lines.
pub(super) fn write_table(table: &Table, out: &mut dyn Write) -> io::Result<()> {
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

/// A share with its sign.
pub(super) fn percent(share: Share) -> String {
    format!("{share} %")
}

/// A number with its unit, or a dash.
pub(super) fn or_dash(number: Option<impl Display>, unit: &str) -> String {
    number.map_or_else(|| "-".to_owned(), |number| format!("{number} {unit}"))
}

/// Text from elsewhere on one line, with nothing in it that a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' => plain.push(' '),
            c if c.is_control() => plain.extend(c.escape_default()),
            c => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_told_nothing_by_others() {
        assert_eq!(plain("a\nb\u{1b}[31m\u{9b}c"), "a b\\u{1b}[31m\\u{9b}c");
    }

    #[test]
    fn tables_are_plain() {
        let mut t = table(&["NAME", "N"]);
        t.add_row(["a", "10"]);
        t.add_row(["bcdef", "1"]);
        align_right(&mut t, [1]);
        let mut out = Vec::new();
        write_table(&t, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME    N\na      10\nbcdef   1\n");
    }
}
