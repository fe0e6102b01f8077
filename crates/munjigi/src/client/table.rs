//! Tables for people: columns aligned by what a terminal shows (Hangul is two wide), every cell escaped.

use std::io::{self, IsTerminal as _};

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use super::text::escaped;

/// Renders rows below a header. On a terminal columns wrap to its width; elsewhere a row is one line.
pub(crate) fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = Table::new();
    let arrangement =
        if io::stdout().is_terminal() { ContentArrangement::Dynamic } else { ContentArrangement::Disabled };
    table.load_style(NOTHING).set_content_arrangement(arrangement).set_header(header.to_vec());
    for row in rows {
        table.add_row(row.iter().map(|cell| escaped(cell)).collect::<Vec<_>>());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_by_display_width_and_cells_cannot_act() {
        let rows = [vec!["웹-1".to_owned(), "x".to_owned()], vec!["a".to_owned(), "\x1b[31m".to_owned()]];
        let text = render(&["NAME", "STATE"], &rows);
        assert_eq!(text, "NAME  STATE\n웹-1  x\na     \\u{1b}[31m\n");
    }
}
