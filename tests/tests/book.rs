//! The documentation as a site: its links and anchors resolve, each page is in it and in its indexes, and its pictures can be
//! drawn.

use std::path::{Path, PathBuf};

use anyhow::Context;
use pulse_tests::{repository, run, without_cargo_env};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The folder of the site, which the first test makes. hyperlink checks all of its links, also those from README and the
/// other documents of the repository.
async fn book() -> anyhow::Result<&'static Path> {
    static BOOK: OnceCell<PathBuf> = OnceCell::const_new();
    let build = async || {
        run(without_cargo_env(Command::new(repository().join("scripts/book")).arg("--check"))).await?;
        anyhow::Ok(repository().join("target/book"))
    };
    BOOK.get_or_try_init(build).await.map(PathBuf::as_path)
}

/// The paths of the pages below `docs`, with `html` in place of `md`.
fn pages() -> anyhow::Result<Vec<String>> {
    let root = repository().join("docs");
    let (mut folders, mut pages) = (vec![root.clone()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") && !path.ends_with("SUMMARY.md") {
                let path = path.strip_prefix(&root)?.with_extension("html");
                pages.push(path.to_str().context("a path in UTF-8")?.replace("README.html", "index.html"));
            }
        }
    }
    Ok(pages)
}

#[tokio::test]
async fn site_and_its_index_for_programs_have_each_page() -> anyhow::Result<()> {
    let book = book().await?;
    let index = std::fs::read_to_string(book.join("llms.txt"))?;
    assert!(index.starts_with("# PulseBoard Ingest\n\n> "), "{index}");
    let pages = pages()?;
    assert!(pages.len() > 50, "{pages:?}");
    let others = ["README", "ARCHITECTURE", "CONTRIBUTING", "SECURITY", "CHANGELOG"];
    let others = others.map(|name| format!("repository/{name}.html").replace("README", "index"));
    for page in pages.into_iter().chain(others) {
        assert!(book.join(&page).exists(), "docs/SUMMARY.md has no {page}");
        let sentences = index.lines().filter_map(|line| line.split_once(&format!("]({page}): ")));
        assert!(
            sentences.map(|(_, sentence)| sentence.len()).sum::<usize>() > 10,
            "llms.txt has no sentence of {page}"
        );
    }
    Ok(())
}

/// The pages that the index of the site's search has for a word. The index is a tree of letters.
fn search<'a>(index: &'a Value, word: &str) -> Vec<&'a str> {
    let tree = &index["index"]["index"]["body"]["root"];
    let node = word.chars().fold(tree, |node, letter| &node[letter.to_string()]);
    let found = node["docs"].as_object().into_iter().flat_map(|documents| documents.keys());
    found.filter_map(|number| index["doc_urls"][number.parse::<usize>().ok()?].as_str()).collect()
}

#[tokio::test]
async fn search_finds_the_page_with_a_word() -> anyhow::Result<()> {
    let files = std::fs::read_dir(book().await?)?.collect::<Result<Vec<_>, _>>()?;
    let file = files.iter().find(|file| file.file_name().to_string_lossy().starts_with("searchindex"));
    let text = std::fs::read_to_string(file.context("there is no index")?.path())?;
    let (_, json) = text.split_once("JSON.parse('").context("an index in JSON")?;
    let json = json.rsplit_once("')").context("the end of the JSON")?.0.replace("\\'", "'").replace("\\\\", "\\");
    let index: Value = serde_json::from_str(&json)?;
    let found = search(&index, "zstandard");
    assert!(found.iter().any(|url| url.starts_with("how-to/retention.html")), "{found:?}");
    assert_eq!(search(&index, "zstandardx"), Vec::<&str>::new());
    Ok(())
}

/// Chromium reads the files without a server, and so without any network.
#[tokio::test]
async fn pictures_are_drawn_by_the_files_of_the_site() -> anyhow::Result<()> {
    let book = book().await?;
    let (mut drawn, profile) = (0, tempfile::tempdir()?);
    for page in pages()? {
        let blocks = std::fs::read_to_string(book.join(&page))?.matches("language-mermaid").count();
        if blocks == 0 {
            continue;
        }
        let mut browser = Command::new("chromium");
        browser.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=20000", "--dump-dom"]);
        browser.arg(format!("--user-data-dir={}", profile.path().display()));
        browser.arg(format!("file://{}", book.join(&page).display()));
        let shown = run(&mut browser).await?;
        assert_eq!(shown.matches("aria-roledescription=").count(), blocks, "{page}: a picture is missing");
        assert!(!shown.contains("aria-roledescription=\"error\""), "{page}: a picture has a mistake");
        drawn += blocks;
    }
    assert!(drawn >= 5, "only {drawn} pictures");
    Ok(())
}
