//! Tables that fit the terminal.

use super::text::cut;

/// A table under construction.
pub(super) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

struct Column {
    title: &'static str,
    /// When there is no room, the column with the highest number goes first; 0 stays.
    rank: u8,
    right: bool,
}

const GAP: usize = 2;

/// A cell is never cut below this.
const NARROWEST: usize = 10;

impl Table {
    pub(super) fn new() -> Self {
        Self { columns: Vec::new(), rows: Vec::new() }
    }

    pub(super) fn column(mut self, title: &'static str, rank: u8) -> Self {
        self.columns.push(Column { title, rank, right: false });
        self
    }

    /// A column of numbers.
    pub(super) fn number(mut self, title: &'static str, rank: u8) -> Self {
        self.columns.push(Column { title, rank, right: true });
        self
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// The text, without columns that hold nothing, and within `width`: the least important column is cut, or goes if
    /// that is not enough, then the next one.
    pub(super) fn render(&self, width: Option<usize>) -> String {
        let mut widths: Vec<usize> = (0..self.columns.len()).map(|at| self.natural_width(at)).collect();
        if let Some(width) = width {
            self.shrink(&mut widths, width);
        }
        let titles: Vec<String> = self.columns.iter().map(|column| column.title.to_owned()).collect();
        let mut text = String::new();
        for row in std::iter::once(&titles).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, column), width) in row.iter().zip(&self.columns).zip(&widths) {
                if *width == 0 {
                    continue;
                }
                if !line.is_empty() {
                    line.push_str(&" ".repeat(GAP));
                }
                let cell = cut(cell, *width);
                let space = " ".repeat(width.saturating_sub(cell.chars().count()));
                line.push_str(&if column.right { space + &cell } else { cell + &space });
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    /// The longest cell with the title; 0 for a column without any content.
    fn natural_width(&self, at: usize) -> usize {
        let longest =
            self.rows.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        match (longest, self.columns[at].rank) {
            (0, 1..) => 0,
            _ => longest.max(self.columns[at].title.chars().count()),
        }
    }

    fn shrink(&self, widths: &mut [usize], width: usize) {
        let mut order: Vec<usize> = (0..self.columns.len()).filter(|at| self.columns[*at].rank > 0).collect();
        order.sort_by_key(|at| std::cmp::Reverse(self.columns[*at].rank));
        let excess = |widths: &[usize]| {
            let shown = widths.iter().filter(|width| **width > 0);
            (shown.clone().sum::<usize>() + GAP * shown.count().saturating_sub(1)).saturating_sub(width)
        };
        for at in order {
            let least = NARROWEST.max(self.columns[at].title.chars().count());
            let room = if self.columns[at].right { 0 } else { widths[at].saturating_sub(least) };
            match excess(widths) {
                0 => return,
                excess if excess <= room => widths[at] -= excess,
                _ => widths[at] = 0,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new().column("PEER", 0).column("AGENT", 2).number("RTT", 1).column("NOTHING", 3);
        table.row(["…zHZrFxk2", "kinfolk/0.1.0 and more words", "12 ms", ""].map(String::from));
        table.row(["…AJU5SA", "x", "0.4 ms", ""].map(String::from));
        table
    }

    #[test]
    fn columns_are_cut_then_dropped_until_it_fits() {
        insta::assert_snapshot!(table().render(None), @"
        PEER       AGENT                            RTT
        …zHZrFxk2  kinfolk/0.1.0 and more words   12 ms
        …AJU5SA    x                             0.4 ms
        ");
        insta::assert_snapshot!(table().render(Some(40)), @"
        PEER       AGENT                     RTT
        …zHZrFxk2  kinfolk/0.1.0 and mo…   12 ms
        …AJU5SA    x                      0.4 ms
        ");
        insta::assert_snapshot!(table().render(Some(25)), @"
        PEER          RTT
        …zHZrFxk2   12 ms
        …AJU5SA    0.4 ms
        ");
        insta::assert_snapshot!(table().render(Some(5)), @"
        PEER
        …zHZrFxk2
        …AJU5SA
        ");
    }
}
