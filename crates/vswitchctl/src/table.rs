//! Tables of database values in the formats of `ovs-vsctl`.

use std::fmt::Write;

use anyhow::{Result, bail};
use ovsdb::{Atom, ColumnType, Datum};
use serde_json::{Value, json};

/// Layout of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns.
    Table,
    /// One column of one row a line.
    List,
    /// RFC 4180.
    Csv,
    /// One JSON object.
    Json,
    /// An HTML table.
    Html,
}

/// Form of a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellFormat {
    /// The text that `set` takes.
    String,
    /// That without brackets and quotes.
    Bare,
    /// JSON of RFC 7047.
    Json,
}

/// How to print tables.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Layout.
    pub format: Format,
    /// Form of cells.
    pub cells: CellFormat,
    /// Print column names.
    pub headings: bool,
    /// Indent JSON.
    pub pretty: bool,
    /// Widest column of [`Format::Table`], in characters; 0 for no limit.
    pub max_width: usize,
}

impl Default for Style {
    fn default() -> Self {
        let (format, cells) = (Format::List, CellFormat::String);
        Self { format, cells, headings: true, pretty: false, max_width: 0 }
    }
}

impl Format {
    /// The format called `name`.
    pub fn from_name(name: &str) -> Result<Self> {
        Ok(match name {
            "table" => Self::Table,
            "list" => Self::List,
            "csv" => Self::Csv,
            "json" => Self::Json,
            "html" => Self::Html,
            _ => bail!("--format={name}: the formats are table, list, csv, json and html"),
        })
    }
}

impl CellFormat {
    /// The cell format called `name`.
    pub fn from_name(name: &str) -> Result<Self> {
        Ok(match name {
            "string" => Self::String,
            "bare" => Self::Bare,
            "json" => Self::Json,
            _ => bail!("--data={name}: the forms are string, bare and json"),
        })
    }
}

/// A value with the type that says how it is written.
pub type Cell<'a> = (Datum, &'a ColumnType);

/// Column names and rows.
#[derive(Debug, Default)]
pub struct Table<'a> {
    /// Column names.
    pub headings: Vec<String>,
    /// Rows, each as long as the headings.
    pub rows: Vec<Vec<Cell<'a>>>,
}

impl Table<'_> {
    /// The table's text. `first` is false if another table was printed before.
    pub fn render(&self, style: &Style, first: bool) -> String {
        let mut text = String::new();
        if !first && matches!(style.format, Format::Table | Format::List | Format::Csv) {
            text.push('\n');
        }
        match style.format {
            Format::Table => self.render_aligned(style, &mut text),
            Format::List => self.render_list(style, &mut text),
            Format::Csv => self.render_csv(style, &mut text),
            Format::Json => self.render_json(style, &mut text),
            Format::Html => self.render_html(style, &mut text),
        }
        text
    }

    fn texts(&self, style: &Style) -> Vec<Vec<String>> {
        let cell = |(datum, ty): &Cell| cell_text(datum, ty, style.cells);
        self.rows.iter().map(|row| row.iter().map(cell).collect()).collect()
    }

    fn render_aligned(&self, style: &Style, text: &mut String) {
        let rows = self.texts(style);
        let mut widths: Vec<usize> = vec![0; self.headings.len()];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
                if style.max_width > 0 {
                    *width = (*width).min(style.max_width);
                }
            }
        }
        let mut lines: Vec<Vec<String>> = Vec::new();
        if style.headings {
            for (width, heading) in widths.iter_mut().zip(&self.headings) {
                *width = (*width).max(heading.chars().count());
            }
            lines.push(self.headings.clone());
            lines.push(widths.iter().map(|width| "-".repeat(*width)).collect());
        }
        lines.extend(rows);
        for line in lines {
            let mut out = String::new();
            for (width, cell) in widths.iter().zip(&line) {
                let _ = write!(out, "{cell:width$.width$} ", width = *width);
            }
            text.push_str(out.trim_end_matches(' '));
            text.push('\n');
        }
    }

    fn render_list(&self, style: &Style, text: &mut String) {
        for (nth, row) in self.texts(style).iter().enumerate() {
            if nth > 0 {
                text.push('\n');
            }
            for (heading, cell) in self.headings.iter().zip(row) {
                let _ = match style.headings {
                    true => writeln!(text, "{heading:20}: {cell}"),
                    false => writeln!(text, "{cell}"),
                };
            }
        }
    }

    fn render_csv(&self, style: &Style, text: &mut String) {
        let quote = |cell: &String| match cell.contains(['"', ',', '\r', '\n']) {
            true => format!("\"{}\"", cell.replace('"', "\"\"")),
            false => cell.clone(),
        };
        let headings = style.headings.then(|| self.headings.clone());
        for row in headings.into_iter().chain(self.texts(style)) {
            text.push_str(&row.iter().map(quote).collect::<Vec<_>>().join(","));
            text.push('\n');
        }
    }

    fn render_json(&self, style: &Style, text: &mut String) {
        let rows: Vec<Vec<Value>> =
            self.rows.iter().map(|row| row.iter().map(|(d, _)| d.to_json()).collect()).collect();
        let table = json!({"data": rows, "headings": self.headings});
        match style.pretty {
            true => pretty(&table, 0, text),
            false => text.push_str(&table.to_string()),
        }
        text.push('\n');
    }

    fn render_html(&self, style: &Style, text: &mut String) {
        let escape = |cell: &str| {
            let cell = cell.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
            cell.replace('"', "&quot;")
        };
        text.push_str("<table border=1>\n");
        let headings = style.headings.then(|| ("th", self.headings.clone()));
        let rows = self.texts(style).into_iter().map(|row| ("td", row));
        for (tag, row) in headings.into_iter().chain(rows) {
            text.push_str("  <tr>\n");
            for cell in row {
                let _ = writeln!(text, "    <{tag}>{}</{tag}>", escape(&cell));
            }
            text.push_str("  </tr>\n");
        }
        text.push_str("</table>\n");
    }
}

/// The text of one cell.
pub fn cell_text(datum: &Datum, ty: &ColumnType, format: CellFormat) -> String {
    match format {
        CellFormat::String => datum.to_text(ty),
        CellFormat::Json => datum.to_json().to_string(),
        CellFormat::Bare if datum.is_map() => {
            let pairs = datum.pairs().map(|(key, value)| format!("{}={}", bare(key), bare(value)));
            pairs.collect::<Vec<_>>().join(" ")
        }
        CellFormat::Bare => datum.keys().map(bare).collect::<Vec<_>>().join(" "),
    }
}

/// An atom without quotes.
pub fn bare(atom: &Atom) -> String {
    match atom.as_str() {
        Some(text) => text.to_owned(),
        None => atom.to_string(),
    }
}

/// JSON as `--pretty` prints it: members and elements on lines of their own, closing brackets
/// where the last of them ends.
fn pretty(value: &Value, depth: usize, text: &mut String) {
    let indent = |text: &mut String| {
        text.push('\n');
        text.push_str(&"  ".repeat(depth + 1));
    };
    match value {
        Value::Array(items) if !items.is_empty() => {
            text.push('[');
            for (nth, item) in items.iter().enumerate() {
                text.push_str(if nth > 0 { "," } else { "" });
                indent(text);
                pretty(item, depth + 1, text);
            }
            text.push(']');
        }
        Value::Object(members) => {
            text.push('{');
            for (nth, (name, member)) in members.iter().enumerate() {
                text.push_str(if nth > 0 { "," } else { "" });
                indent(text);
                let _ = write!(text, "{}: ", Value::from(name.as_str()));
                pretty(member, depth + 1, text);
            }
            text.push('}');
        }
        other => text.push_str(&other.to_string()),
    }
}
