//! A page and its tables.

use std::path::Path;

use anyhow::Context;

/// A generated page.
pub(super) struct Page {
    /// Its path in the folder.
    pub(super) path: String,
    pub(super) title: String,
    pub(super) text: String,
}

impl Page {
    pub(super) fn write(&self, folder: &Path) -> anyhow::Result<()> {
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
pub(super) struct Table(pub(super) String);

impl Table {
    pub(super) fn new(columns: &[&str]) -> Self {
        Self(format!("| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len())))
    }

    pub(super) fn row(&mut self, cells: &[&str]) {
        let cells: Vec<String> = cells.iter().map(|cell| cell_text(cell)).collect();
        self.0.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
}

/// Without what ends a cell, or would be read as HTML outside of code.
pub(super) fn cell_text(cell: &str) -> String {
    let cell = cell.replace('|', "\\|").replace('\n', " ");
    let parts = cell.split('`').enumerate();
    let parts = parts.map(|(n, part)| if n % 2 == 0 { part.replace('<', "\\<") } else { part.to_owned() });
    parts.collect::<Vec<_>>().join("`")
}

/// The text as code, or nothing.
pub(super) fn code(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!("`{text}`") }
}
