//! The changes of a version, from CHANGELOG.md.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

/// The changes of a version in the format of Artifact Hub, from its section, or from that of the unreleased changes while
/// there is none.
pub(crate) fn changes(changelog: &str, version: &str) -> anyhow::Result<Vec<Value>> {
    let section =
        |name: &str| changelog.split("\n## [").skip(1).find(|section| section.starts_with(&format!("{name}]")));
    let section = section(version).or_else(|| section("Unreleased"));
    let section = section.with_context(|| format!("CHANGELOG.md has no section [{version}]"))?;
    let mut changes: Vec<Value> = Vec::new();
    for kind in section.split("\n### ").skip(1) {
        let (heading, text) = kind.split_once('\n').unwrap_or((kind, ""));
        for item in format!("\n{text}").split("\n* ").skip(1) {
            let words: Vec<&str> = item.split_whitespace().collect();
            changes.push(json!({ "kind": heading.trim().to_lowercase(), "description": words.join(" ") }));
        }
    }
    ensure!(!changes.is_empty(), "the section of CHANGELOG.md lists no changes");
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_those_of_the_version_by_kind() {
        let text = "# Changelog\n\n## [Unreleased]\n\n### Added\n\n* Later.\n\n## [1.0.0] - 2030-01-01\n\nText.\n\n\
                    ### Added\n\n* One, with\n  a second line.\n* Two.\n\n### Fixed\n\n* Three.\n\n## [0.9.0]\n";
        let expected = json!([
            { "kind": "added", "description": "One, with a second line." },
            { "kind": "added", "description": "Two." },
            { "kind": "fixed", "description": "Three." },
        ]);
        assert_eq!(Value::from(changes(text, "1.0.0").expect("found")), expected);
        let unreleased = changes(text, "1.1.0").expect("found");
        assert_eq!(unreleased, [json!({ "kind": "added", "description": "Later." })]);
        assert!(changes(text, "0.9.0").is_err(), "a section without changes");
        assert!(changes("# Changelog\n", "1.0.0").is_err());
    }
}
