//! Formats rows of text as a table: names are aligned left, numbers right.

/// Printed instead of a label if no peer is up.
pub(super) const NO_PEER: &str = "(none)";

/// Formats each row as a line, with two spaces between the columns; the first `names` columns are names.
pub(super) fn format_table(rows: &[Vec<String>], names: usize) -> Vec<String> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell: &String| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    rows.iter()
        .map(|row| format_row(row, &widths, names))
        .collect()
}

fn format_row(row: &[String], widths: &[usize], names: usize) -> String {
    let cells = row.iter().zip(widths).enumerate();
    let cells = cells.map(|(column, (cell, &width))| {
        if column < names {
            format!("{cell:width$}")
        } else {
            format!("{cell:>width$}")
        }
    });
    cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
}
