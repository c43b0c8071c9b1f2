//! The output of commands, for people and programs. Only this file writes to stdout. A terminal obeys nothing in it.

use std::io::{BufWriter, ErrorKind, Write};

use serde::Serialize;

use crate::printable::{printable, printable_json, printable_line};

/// Prints one line; line ends in it are shown as `\n`.
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    print(&printable_line(line))
}

/// Prints text whose line ends are our layout.
pub(crate) fn print_text(text: &str) -> anyhow::Result<()> {
    print(&printable(text))
}

/// A closed pipe is not an error: a reader such as `head` may stop early.
fn print(line: &str) -> anyhow::Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Prints one line of progress on stderr, for the person who waits.
#[expect(clippy::print_stderr, reason = "progress is for the person at the terminal, not for a log")]
pub(crate) fn print_progress(line: &str) {
    eprintln!("{}", printable_line(line));
}

/// Prints a value as one line of JSON.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    print(&printable_json(&serde_json::to_string(value)?))
}

/// Prints lines of JSON. Returns `false` if the reader has closed the pipe.
pub(crate) fn print_json_lines(lines: impl IntoIterator<Item = String>) -> anyhow::Result<bool> {
    let mut stdout = BufWriter::new(std::io::stdout());
    let mut lines = lines.into_iter();
    match lines.try_for_each(|line| writeln!(stdout, "{}", printable_json(&line))).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        other => Ok(other.map(|()| true)?),
    }
}

/// Prints a header and rows. Each column is as wide as its widest cell.
pub(crate) fn print_table(header: &[&str], rows: &[Vec<String>]) -> anyhow::Result<()> {
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.iter().map(|cell| printable_line(cell)).collect()).collect();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain([header[column].len()])
            .max()
    };
    let widths: Vec<usize> = (0..header.len()).map(|column| width(column).unwrap_or(0)).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    print_line(&line(header.to_vec()))?;
    rows.iter().try_for_each(|row| print_line(&line(row.iter().map(String::as_str).collect())))
}
