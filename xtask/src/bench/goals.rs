//! One table of what was promised: ours, the peer's, the ratio and the floor beside it.

use super::report::{RATIO, Record, digits};

const HEAD: [&str; 7] = ["goal", "ours", "peer", "ratio", "floor", "wanted", ""];

/// The records that promise something, as a table in Markdown, which people can read as it is and put into documents.
pub(super) fn table(records: &[Record]) -> String {
    let head = HEAD.map(str::to_owned);
    let rows: Vec<[String; 7]> = std::iter::once(head).chain(records.iter().filter_map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 7] = std::array::from_fn(width);
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!(" {cell:<width$} |"));
        format!("|{}\n", cells.collect::<String>())
    };
    let rule = widths.map(|width| "-".repeat(width + 2)).join("|");
    let mut lines: Vec<String> = rows.iter().map(line).collect();
    lines.insert(1, format!("|{rule}|\n"));
    lines.concat()
}

/// The names of those that miss what was promised.
pub(super) fn missed(records: &[Record]) -> Vec<&str> {
    records.iter().filter(|record| record.is_kept() == Some(false)).map(|record| record.name.as_str()).collect()
}

fn row(record: &Record) -> Option<[String; 7]> {
    let (budget, kept) = (record.budget?, record.is_kept()?);
    let unit = record.of.as_deref().unwrap_or(&record.unit);
    let with =
        |value: Option<f64>, unit: &str| value.map_or_else(String::new, |value| format!("{} {unit}", digits(value)));
    let is_ratio = record.unit == RATIO;
    let ours = if is_ratio { record.ours } else { Some(record.value) };
    let ratio = if is_ratio { Some(record.value) } else { record.times_better() };
    Some([
        // A bar would be the end of the cell.
        record.name.replace('|', "/"),
        with(ours, unit),
        with(record.peer, unit),
        ratio.map_or_else(String::new, |ratio| format!("{}x", digits(ratio))),
        with(record.floor, unit),
        if is_ratio {
            format!("{} {}x", record.bound(), digits(budget))
        } else {
            format!("{} {} {}", record.bound(), digits(budget), record.unit)
        },
        if kept { "kept" } else { "MISSED" }.to_owned(),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(lines: &str) -> Vec<Record> {
        lines.lines().map(|line| serde_json::from_str(line).expect("it is a record")).collect()
    }

    const LINES: &str = r#"{"name": "step | small", "value": 1.3, "unit": "x", "better": "higher", "budget": 1.15, "ours": 77, "peer": 100, "floor": 30, "of": "ms"}
{"name": "exposed", "value": 12.5, "unit": "%", "better": "lower", "budget": 10, "peer": 25}
{"name": "start", "value": 20, "unit": "ms", "better": "lower", "budget": 100}
{"name": "decode", "value": 2, "unit": "x", "better": "higher", "budget": 3}
{"name": "talk", "value": 5, "unit": "ms", "better": "lower"}"#;

    #[test]
    fn what_was_promised_stands_in_one_table() {
        let expected = "\
| goal         | ours    | peer   | ratio | floor   | wanted         |        |
|--------------|---------|--------|-------|---------|----------------|--------|
| step / small | 77.0 ms | 100 ms | 1.30x | 30.0 ms | at least 1.15x | kept   |
| exposed      | 12.5 %  | 25.0 % | 2.00x |         | at most 10.0 % | MISSED |
| start        | 20.0 ms |        |       |         | at most 100 ms | kept   |
| decode       |         |        | 2.00x |         | at least 3.00x | MISSED |
";
        assert_eq!(table(&records(LINES)), expected);
    }

    #[test]
    fn what_is_missed_is_named() {
        assert_eq!(missed(&records(LINES)), ["exposed", "decode"]);
    }
}
