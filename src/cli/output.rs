//! What goes to stdout: tables for people, JSON for programs; and times in the caller's zone.

use std::fmt::Write as _;
use std::io::{self, Write as _};

use clap::ValueEnum;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::exit::{Failure, Result};
use super::sizes::format_bytes;
use crate::base::{Error, ErrorKind, kind_name};

/// The form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Output {
    #[default]
    Table,
    Json,
}

/// A value that prints as a table and as JSON.
pub(super) trait Show: Serialize {
    fn table(&self) -> Table;
}

impl Output {
    /// Prints a result on stdout.
    pub(super) fn show<T: Show>(self, value: &T) -> Result<()> {
        match self {
            Self::Table => self.text(&value.table().render()),
            Self::Json => self.json(value),
        }
    }

    /// Prints a value as JSON, whatever the form asked for.
    pub(super) fn json<T: Serialize>(self, value: &T) -> Result<()> {
        let mut text = serde_json::to_string_pretty(value)
            .map_err(|e| Error::with_source(ErrorKind::Io, format!("cannot encode the result: {e}"), e))?;
        text.push('\n');
        self.text(&text)
    }

    /// Prints text as it is. A reader that left (`| head`) is no error.
    pub(super) fn text(self, text: &str) -> Result<()> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            Err(e) => Err(Error::io("write to", "stdout", e).into()),
        }
    }

    /// Prints an error on stderr.
    pub(super) fn failure(self, failure: &Failure) {
        let message = failure.error.message();
        let text = match self {
            Self::Table => match failure.advice() {
                Some(advice) => format!("stillpoint: {message}\n  to do: {advice}\n"),
                None => format!("stillpoint: {message}\n"),
            },
            Self::Json => {
                let error = serde_json::json!({ "error": {
                    "kind": kind_name(failure.error.kind()),
                    "message": message,
                    "hint": failure.advice(),
                }});
                format!("{error}\n")
            }
        };
        // Nowhere is left to report a failure of stderr.
        let _ = io::stderr().lock().write_all(text.as_bytes());
    }
}

/// Rows under headings; the columns named as numbers are set to the right.
pub(super) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
    /// Lines below the rows.
    notes: Vec<String>,
}

impl Table {
    /// A table with a heading over each column; a heading that starts with `>` sets its column to the right.
    pub(super) fn new(headings: &[&'static str]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new(), notes: Vec::new() }
    }

    /// Two columns without headings: names and values.
    pub(super) fn facts() -> Self {
        Self { headings: vec!["", ""], rows: Vec::new(), notes: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Adds a line below the rows.
    pub(super) fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Adds one name and value.
    pub(super) fn fact(&mut self, name: &str, value: impl Into<String>) {
        self.rows.push(vec![name.into(), value.into()]);
    }

    pub(super) fn render(&self) -> String {
        let titles: Vec<&str> = self.headings.iter().map(|h| h.trim_start_matches('>')).collect();
        let mut widths: Vec<usize> = titles.iter().map(|t| t.chars().count()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let mut text = String::new();
        if titles.iter().any(|title| !title.is_empty()) {
            self.line(&mut text, &widths, &titles);
        }
        for row in &self.rows {
            let cells: Vec<&str> = row.iter().map(String::as_str).collect();
            self.line(&mut text, &widths, &cells);
        }
        for note in &self.notes {
            text.push_str(note);
            text.push('\n');
        }
        text
    }

    fn line(&self, text: &mut String, widths: &[usize], cells: &[&str]) {
        let mut line = String::new();
        for ((cell, width), heading) in cells.iter().zip(widths).zip(&self.headings) {
            let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
            // Writing to a string cannot fail.
            let _ = if heading.starts_with('>') {
                write!(line, "{padding}{cell}  ")
            } else {
                write!(line, "{cell}{padding}  ")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
}

/// RFC 3339 with offset, to the microsecond, in the time zone of the caller.
pub(super) fn format_time(unix_nanos: i64) -> String {
    format_time_in(unix_nanos, &TimeZone::system())
}

fn format_time_in(unix_nanos: i64, zone: &TimeZone) -> String {
    match Timestamp::from_nanosecond(i128::from(unix_nanos)) {
        Ok(time) => time.to_zoned(zone.clone()).strftime("%Y-%m-%dT%H:%M:%S%.6f%:z").to_string(),
        Err(_) => format!("{unix_nanos} ns"),
    }
}

/// A size, or a dash.
pub(super) fn format_limit(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".into(), format_bytes)
}

/// A list in one cell, or a dash.
pub(super) fn format_list(items: &[String]) -> String {
    if items.is_empty() { "-".into() } else { items.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new(&["NAME", ">SIZE"]);
        table.row(vec!["é".into(), "1 B".into()]);
        table.row(vec!["longer".into(), "10.0 GiB".into()]);
        assert_eq!(table.render(), "NAME        SIZE\né            1 B\nlonger  10.0 GiB\n");
        let mut facts = Table::facts();
        facts.fact("a", "1");
        facts.fact("bcd", "2");
        assert_eq!(facts.render(), "a    1\nbcd  2\n");
    }

    #[test]
    fn times_carry_their_offset() {
        let zone = TimeZone::fixed(jiff::tz::offset(-3));
        assert_eq!(format_time_in(1_000_000_001_234_567_890, &zone), "2001-09-08T22:46:41.234567-03:00");
        assert_eq!(format_time_in(0, &TimeZone::UTC), "1970-01-01T00:00:00.000000+00:00");
    }
}
