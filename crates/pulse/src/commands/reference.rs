//! `pulse reference`: writes the generated pages of docs/reference as Markdown.

mod commands;
mod metrics;
mod object;
mod problems;

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Args, Command};

#[derive(Debug, Args)]
pub(crate) struct ReferenceArgs {
    /// Folder to write the pages to
    folder: PathBuf,
}

/// `programs` are the command lines of the binary, each with the name that runs it.
pub(crate) fn run(args: &ReferenceArgs, programs: &[(&str, Command)]) -> anyhow::Result<()> {
    let mut pages = commands::pages(programs);
    pages.extend([metrics::page(), problems::page(), object::page()?]);
    pages.iter().try_for_each(|page| page.write(&args.folder))
}

/// A generated page.
struct Page {
    /// Its path in the folder.
    path: String,
    title: String,
    text: String,
}

impl Page {
    fn write(&self, folder: &Path) -> anyhow::Result<()> {
        let path = folder.join(&self.path);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        let (title, text) = (&self.title, self.text.trim_end());
        let text = format!("<!-- scripts/reference writes this page. -->\n\n# {title}\n\n{text}\n");
        std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    }
}

/// A table of Markdown. Its cells are Markdown in which bars and angle brackets stand for themselves.
struct Table(String);

impl Table {
    fn new(columns: &[&str]) -> Self {
        Self(format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len())))
    }

    fn row(&mut self, cells: &[&str]) {
        let cells: Vec<String> = cells.iter().map(|cell| cell_text(cell)).collect();
        self.0.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

/// Without what ends a cell, or would be read as HTML outside of code.
fn cell_text(cell: &str) -> String {
    let cell = cell.replace('|', "\\|").replace('\n', " ");
    let parts = cell.split('`').enumerate();
    let parts = parts.map(|(n, part)| if n % 2 == 0 { part.replace('<', "\\<") } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("`")
}

/// The text as code, or nothing.
fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}
