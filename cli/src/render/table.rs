//! Tables without borders: cut to the terminal, full when piped.

use owo_colors::{OwoColorize, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// One value of a table.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    style: Option<Style>,
}

impl Cell {
    /// Colours the value.
    pub(crate) fn styled(text: impl Into<String>, style: Style) -> Self {
        Self { text: text.into(), style: Some(style) }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), style: None }
    }
}

/// How a column is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    /// Text.
    Left,
    /// Numbers, so that their digits stand below each other.
    Right,
    /// Text that is left out as a column where no row has any, and is the first to be cut.
    Note,
}

/// Rows below a header.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    header: Vec<String>,
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

const GAP: &str = "  ";

impl Table {
    /// Makes a table with these columns.
    pub(crate) fn new(columns: impl IntoIterator<Item = (impl Into<String>, Column)>) -> Self {
        let (header, columns) = columns.into_iter().map(|(name, column)| (name.into(), column)).unzip();
        Self { header, columns, rows: Vec::new() }
    }

    /// Adds a row with as many cells as there are columns.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        let cells: Vec<Cell> = cells.into_iter().collect();
        debug_assert_eq!(cells.len(), self.columns.len(), "a row has a cell for each column");
        self.rows.push(cells);
    }

    /// Writes the table; no line is longer than `width` columns where one is given.
    pub(crate) fn render(&self, width: Option<usize>) -> String {
        let shown: Vec<usize> = (0..self.columns.len())
            .filter(|&i| self.columns[i] != Column::Note || self.rows.iter().any(|row| !row[i].text.is_empty()))
            .collect();
        let mut widths: Vec<usize> = shown
            .iter()
            .map(|&i| {
                self.rows
                    .iter()
                    .map(|row| clean(&row[i].text).width())
                    .chain([self.header[i].width()])
                    .max()
                    .unwrap_or(0)
            })
            .collect();
        if let Some(room) = width {
            self.fit(&shown, &mut widths, room);
        }
        let header: Vec<Cell> =
            self.header.iter().map(|name| Cell::styled(name.to_uppercase(), Style::new().bold())).collect();
        let mut text = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            text.push_str(&self.line(&shown, &widths, row));
            text.push('\n');
        }
        text
    }

    /// Narrows the notes first, then whatever is widest, until a line fits.
    fn fit(&self, shown: &[usize], widths: &mut [usize], room: usize) {
        const LEAST: usize = 6;
        let total = |widths: &[usize]| widths.iter().sum::<usize>() + GAP.len() * widths.len().saturating_sub(1);
        for notes_only in [true, false] {
            loop {
                let over = total(widths).saturating_sub(room);
                let widest = (0..widths.len())
                    .filter(|&k| !notes_only || self.columns[shown[k]] == Column::Note)
                    .filter(|&k| widths[k] > LEAST && self.columns[shown[k]] != Column::Right)
                    .max_by_key(|&k| widths[k]);
                match widest {
                    Some(widest) if over > 0 => widths[widest] -= over.min(widths[widest] - LEAST).clamp(1, over),
                    _ => break,
                }
            }
        }
    }

    fn line(&self, shown: &[usize], widths: &[usize], row: &[Cell]) -> String {
        let mut line = String::new();
        for (&i, &width) in shown.iter().zip(widths) {
            let cell = &row[i];
            let text = cut(&clean(&cell.text), width);
            let space = " ".repeat(width.saturating_sub(text.width()));
            let style = cell.style.filter(|_| !text.is_empty());
            let painted = style.map_or_else(|| text.clone(), |style| text.style(style).to_string());
            if !line.is_empty() {
                line.push_str(GAP);
            }
            match self.columns[i] {
                Column::Right => line.extend([space, painted]),
                Column::Left | Column::Note => line.extend([painted, space]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    }
}

/// Takes out what would write to the terminal or break the line.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Shortens a text to a width, with a sign that something is missing.
pub(crate) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut used = 1;
    let kept: String = text
        .chars()
        .take_while(|c| {
            used += c.width().unwrap_or(0);
            used <= width
        })
        .collect();
    if width == 0 { String::new() } else { format!("{}…", kept.trim_end()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> String {
        anstream::adapter::strip_str(text).to_string()
    }

    fn table() -> Table {
        let mut table = Table::new([("id", Column::Left), ("step", Column::Right), ("note", Column::Note)]);
        table.row(["j-7k2m".into(), "12400".into(), Cell::default()]);
        table.row(["j-7k1c".into(), "310".into(), "lab2/gpu1: CUDA out of memory".into()]);
        table
    }

    #[test]
    fn numbers_stand_below_each_other_and_nothing_trails() {
        let expected = "\
ID       STEP  NOTE
j-7k2m  12400
j-7k1c    310  lab2/gpu1: CUDA out of memory
";
        assert_eq!(plain(&table().render(None)), expected);
    }

    #[test]
    fn a_narrow_terminal_cuts_the_note_and_keeps_the_id() {
        let text = plain(&table().render(Some(30)));
        assert!(text.contains("j-7k1c    310  lab2/gpu1: CUD…"), "{text}");
        assert!(text.lines().all(|line| line.width() <= 30), "{text}");
    }

    #[test]
    fn a_column_of_notes_without_notes_is_left_out() {
        let mut table = Table::new([("id", Column::Left), ("note", Column::Note)]);
        table.row(["j-7k2m".into(), Cell::default()]);
        assert_eq!(plain(&table.render(None)), "ID\nj-7k2m\n");
    }

    #[test]
    fn wide_letters_count_twice_and_control_characters_never_get_out() {
        let mut table = Table::new([("name", Column::Left), ("n", Column::Right)]);
        table.row(["情感\u{1b}[2J".into(), "1".into()]);
        table.row(["plain".into(), "22".into()]);
        let text = plain(&table.render(None));
        assert_eq!(text, "NAME       N\n情感 [2J   1\nplain     22\n");
    }

    #[test]
    fn cutting_leaves_a_sign() {
        assert_eq!(cut("abcdef", 4), "abc…");
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abc", 0), "");
    }
}
