//! Files of a crate must not import each other in a cycle.
//!
//! Reads paths from the source text: after `use`, and in expressions, types and macros. Code under `#[cfg(test)]` is
//! left out, because unit tests may use the whole crate.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::Context;
use petgraph::algo::tarjan_scc;
use petgraph::graphmap::DiGraphMap;
use petgraph::visit::Dfs;
use proc_macro2::{TokenStream, TokenTree};
use pulse_tests::repository;

/// Path of a module from the crate root, such as `["crd", "spec"]`.
type Module = Vec<String>;

#[test]
fn files_of_a_crate_have_no_import_cycles() -> anyhow::Result<()> {
    let root = repository();
    let mut sources = vec![root.join("tests/src"), root.join("tests/cluster")];
    for folder in ["crates", "tests/tests"] {
        let entries = std::fs::read_dir(root.join(folder))?.collect::<Result<Vec<_>, _>>()?;
        let folders = entries.into_iter().map(|entry| entry.path()).filter(|path| path.is_dir());
        sources.extend(folders.map(|path| if folder == "crates" { path.join("src") } else { path }));
    }
    let mut found = Vec::new();
    for folder in &sources {
        let name = folder.strip_prefix(&root)?.display().to_string();
        found.extend(cycles(folder)?.into_iter().map(|cycle| format!("{name}: {}", cycle.join(" <-> "))));
    }
    assert!(found.is_empty(), "move what is shared to a file below the others:\n{}", found.join("\n"));
    Ok(())
}

#[test]
fn import_cycle_over_groups_macros_and_parents_is_found() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    std::fs::create_dir(folder.path().join("c"))?;
    for (file, text) in [
        ("lib.rs", "mod a; mod b; mod c; fn main() { a::run() }"),
        ("a.rs", "use std::{fmt, crate_b::X}; use crate::{b::{self, B}};"),
        ("b.rs", "fn f() { println!(\"{}\", crate::c::inner::LIMIT) }"),
        ("c/mod.rs", "pub mod inner; #[cfg(test)] mod tests { use crate::main; }"),
        ("c/inner.rs", "pub const LIMIT: u8 = super::super::a::LIMIT;"),
    ] {
        std::fs::write(folder.path().join(file), text)?;
    }
    assert_eq!(cycles(folder.path())?, [["a", "b", "c::inner"]]);
    Ok(())
}

/// The stages of a reconcile by their place: file, and crate.
const STAGES: [(&str, &str); 5] = [
    ("observe", "pulse-operator"),
    ("decide", "pulse-reconcile"),
    ("apply", "pulse-operator"),
    ("conclude", "pulse-reconcile"),
    ("publish", "pulse-operator"),
];

#[test]
fn stages_of_a_reconcile_import_no_later_stage() -> anyhow::Result<()> {
    let mut found = Vec::new();
    for (place, (stage, home)) in STAGES.iter().enumerate() {
        let folder = repository().join("crates").join(home).join("src");
        let imports = imports(&folder)?;
        let graph: DiGraphMap<&str, ()> = imports.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
        let below = format!("{stage}::");
        let own = graph.nodes().filter(|module| module == stage || module.starts_with(&below));
        let mut reached = Dfs::from_parts(own.collect(), HashSet::new());
        anyhow::ensure!(!reached.stack.is_empty(), "{home} has no {stage}");
        while let Some(module) = reached.next(&graph) {
            let path = folder.join(module.replace("::", "/"));
            let file = Some(path.with_extension("rs")).filter(|file| file.exists()).unwrap_or(path.join("mod.rs"));
            let text = std::fs::read_to_string(file).unwrap_or_default();
            let later = STAGES[place + 1..].iter().filter(|(later, crate_of)| {
                module == *later && crate_of == home || text.contains(&format!("pulse_reconcile::{later}::{later}"))
            });
            found.extend(later.map(|(later, _)| format!("{stage} imports {later}, in {module}")));
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
    Ok(())
}

/// Groups of modules that import each other, directly or through others.
fn cycles(folder: &Path) -> anyhow::Result<Vec<Vec<String>>> {
    let imports = imports(folder)?;
    let graph: DiGraphMap<&str, ()> = imports.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    let groups = tarjan_scc(&graph).into_iter().filter(|group| group.len() > 1);
    let sorted = groups.map(|mut group| {
        group.sort_unstable();
        group.into_iter().map(str::to_owned).collect()
    });
    Ok(sorted.collect())
}

/// The imports between the files of a crate, by the names of their modules.
fn imports(folder: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let mut files = BTreeMap::new();
    find_files(folder, &[], &mut files)?;
    let mut imports = Vec::new();
    for (module, path) in &files {
        let text = std::fs::read_to_string(path)?;
        let tokens: TokenStream = text.parse().map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        let mut reader = Reader { files: &files, module, imported: Vec::new() };
        reader.read(tokens);
        for target in reader.imported.iter().filter(|target| *target != module) {
            imports.push((name(module), name(target)));
        }
    }
    Ok(imports)
}

fn name(module: &Module) -> String {
    if module.is_empty() { "lib".to_owned() } else { module.join("::") }
}

/// Finds the modules below `folder`, which is the folder of module `parent`.
fn find_files(folder: &Path, parent: &[String], files: &mut BTreeMap<Module, PathBuf>) -> anyhow::Result<()> {
    let has_library = folder.join("lib.rs").exists();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).context("the file name is not UTF-8")?;
        let module = [parent, &[name.to_owned()]].concat();
        if path.is_dir() {
            find_files(&path, &module, files)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let is_parent = name == "mod" || name == "lib" || (name == "main" && !has_library);
            files.insert(if is_parent { parent.to_vec() } else { module }, path);
        }
    }
    Ok(())
}

/// Reads the paths of one file.
struct Reader<'a> {
    files: &'a BTreeMap<Module, PathBuf>,
    module: &'a Module,
    imported: Vec<Module>,
}

impl Reader<'_> {
    fn read(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut rest = tokens.as_slice();
        while let [first, after @ ..] = rest {
            rest = match first {
                TokenTree::Group(group) if group.to_string() == "[cfg (test)]" => after_item(after),
                TokenTree::Group(group) => {
                    self.read(group.stream());
                    after
                }
                TokenTree::Ident(_) => self.read_path(&[], rest),
                _ => after,
            };
        }
    }

    /// Reads a path with the segments `prefix` before it. Returns the tokens after it.
    fn read_path<'t>(&mut self, prefix: &[String], tokens: &'t [TokenTree]) -> &'t [TokenTree] {
        let mut path = prefix.to_vec();
        let mut rest = tokens;
        while let [TokenTree::Ident(segment), after @ ..] = rest {
            path.push(segment.to_string());
            rest = after;
            let [TokenTree::Punct(first), TokenTree::Punct(second), after @ ..] = rest else { break };
            if (first.as_char(), second.as_char()) != (':', ':') {
                break;
            }
            rest = after;
            if let [TokenTree::Group(group), after @ ..] = rest {
                let items: Vec<TokenTree> = group.stream().into_iter().collect();
                for item in items.split(|token| matches!(token, TokenTree::Punct(comma) if comma.as_char() == ',')) {
                    self.read_path(&path, item);
                }
                return after;
            }
        }
        if path.len() > 1 {
            self.imported.extend(self.resolve(&path));
        }
        rest
    }

    /// The module with the item that a path refers to; `None` outside the crate.
    fn resolve(&self, path: &[String]) -> Option<Module> {
        let mut base = self.module.clone();
        let mut path = path;
        match path.first()?.as_str() {
            "crate" => base.clear(),
            "self" => {}
            "super" => {
                while path.get(1).is_some_and(|segment| segment == "super") {
                    base.pop();
                    path = &path[1..];
                }
                base.pop();
            }
            child => {
                base.push(child.to_owned());
                self.files.get(&base)?;
            }
        }
        for segment in &path[1..] {
            base.push(segment.clone());
            if !self.files.contains_key(&base) {
                base.pop();
                break;
            }
        }
        Some(base)
    }
}

/// The tokens after an item, which ends with a block or a semicolon.
fn after_item(tokens: &[TokenTree]) -> &[TokenTree] {
    let is_end = |token: &TokenTree| match token {
        TokenTree::Group(group) => group.delimiter() == proc_macro2::Delimiter::Brace,
        TokenTree::Punct(end) => end.as_char() == ';',
        _ => false,
    };
    tokens.iter().position(is_end).map_or(&[], |end| &tokens[end + 1..])
}
