/*!
`cargo xtask docs`: every link in the repository's Markdown leads somewhere, and docs/ makes a book (mdBook).

```text
docs/, SECURITY.md and others ─▶ target/book-source ─ mdbook ─▶ target/book/index.html
```

The book has the pages at the top of the repository too, so that links between pages are the same there and in a checkout. Each link of a page in the book
leads to a page of the book.
*/
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, ensure};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use stockade_lab::tool;

use crate::{setup, workspace};

/// Folders and pages that the book consists of.
const IN_BOOK: [&str; 7] = [
    "docs",
    "packaging",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "SPECIFICATION.md",
];

/// Checks the links and builds the book. Returns whether every link leads somewhere; prints those that do not.
pub fn run() -> anyhow::Result<bool> {
    let problems = broken_links()?;
    let book = build()?;
    let missing = missing_in_book(&book)?;
    for problem in problems.iter().chain(&missing) {
        println!("{problem}");
    }
    println!("the book is {}", book.join("index.html").display());
    Ok(problems.is_empty() && missing.is_empty())
}

/// Builds the documentation of every crate's items, private ones included. Returns whether rustdoc has no warning.
///
/// With private items a link of a public item to a private one leads somewhere.
pub fn of_crates() -> anyhow::Result<bool> {
    let mut cargo = workspace::cargo();
    cargo.args(["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"]);
    cargo.env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links");
    Ok(workspace::status(&mut cargo)?.success())
}

/// Describes each link of a page in the book to a page that the book lacks.
fn missing_in_book(book: &Path) -> anyhow::Result<Vec<String>> {
    let html = |page: &Path| {
        let page = book.join(page);
        if page.ends_with("README.md") {
            page.with_file_name("index.html")
        } else {
            page.with_extension("html")
        }
    };
    let (in_book, mut missing) = (git_files(&IN_BOOK)?, Vec::new());
    for (file, page) in pages()?.into_iter().filter(|(file, _)| in_book.contains(file) && html(file).exists())
    {
        for (line, link) in page.links {
            let to = target(&file, &link);
            if to.extension().is_some_and(|e| e == "md") && !html(&to).exists() {
                missing.push(format!("{}:{line}: {link}: docs/SUMMARY.md lacks this page", file.display()));
            }
        }
    }
    Ok(missing)
}

/// Builds the book and returns its folder.
fn build() -> anyhow::Result<PathBuf> {
    let mdbook = setup::mdbook()?;
    let (root, target) = (workspace::root(), workspace::target_folder());
    let (source, book) = (target.join("book-source"), target.join("book"));
    let _ = fs::remove_dir_all(&source);
    for file in git_files(&IN_BOOK)? {
        let to = source.join(&file);
        let folder = to.parent().context("a file has a folder")?;
        fs::create_dir_all(folder).with_context(|| format!("making the folder {}", folder.display()))?;
        fs::copy(root.join(&file), &to).with_context(|| format!("copying {}", file.display()))?;
    }
    let summary = fs::read_to_string(root.join("docs/SUMMARY.md")).context("reading docs/SUMMARY.md")?;
    let checks = git_files(&["docs/checks/SP*.md"])?;
    write(&source.join("SUMMARY.md"), &summary_from_root(&summary, &checks))?;
    let settings = fs::read_to_string(root.join("docs/book.toml")).context("reading docs/book.toml")?;
    write(&source.join("book.toml"), &settings)?;
    let mut build = tool::command(&mdbook.to_string_lossy());
    build.arg("build").arg("--dest-dir").arg(&book).arg(&source).env("RUST_LOG", "warn");
    tool::output(&mut build).context("building the book")?;
    let first = book.join("docs/introduction.html");
    ensure!(first.exists(), "mdbook made no {}", first.display());
    Ok(book)
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Rewrites the links of docs/SUMMARY.md to lead from the folder above, and puts the generated page of each code below their list.
fn summary_from_root(summary: &str, checks: &[PathBuf]) -> String {
    let mut text = String::new();
    for line in summary.lines() {
        let Some((before, rest)) = line.split_once("](") else {
            text += &format!("{line}\n");
            continue;
        };
        let (link, after) = rest.split_once(')').unwrap_or((rest, ""));
        text += &format!("{before}]({}){after}\n", normal(Path::new("docs"), link).display());
        if link == "checks/README.md" {
            for check in checks {
                let code = check.file_stem().unwrap_or_default().to_string_lossy();
                text += &format!("  - [{code}]({})\n", check.display());
            }
        }
    }
    text
}

/// Returns the files that git tracks or would add.
fn git_files(paths: &[&str]) -> anyhow::Result<Vec<PathBuf>> {
    let mut git = tool::command("git");
    git.current_dir(workspace::root()).args(["ls-files", "--cached", "--others", "--exclude-standard", "--"]);
    let list = tool::text(git.args(paths)).context("asking git for its files")?;
    let files = list.lines().map(PathBuf::from);
    Ok(files.filter(|file| workspace::root().join(file).exists()).collect())
}

/// Joins a link to the folder of its page and resolves `..`.
fn normal(folder: &Path, link: &str) -> PathBuf {
    let mut path = PathBuf::new();
    for part in folder.join(link).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

/// The relative links of a page, with their lines, and the anchors of its headings.
#[derive(Debug, Default)]
struct Page {
    links: Vec<(usize, String)>,
    anchors: BTreeSet<String>,
}

impl Page {
    fn read(text: &str) -> Self {
        let (mut page, mut heading) = (Self::default(), None::<String>);
        for (event, range) in Parser::new_ext(text, Options::ENABLE_TABLES).into_offset_iter() {
            match event {
                Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. })
                    if !dest_url.contains("://") && !dest_url.starts_with("mailto:") =>
                {
                    let line = text[..range.start].matches('\n').count() + 1;
                    page.links.push((line, dest_url.into_string()));
                }
                Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
                Event::End(TagEnd::Heading(_)) => {
                    let anchor = anchor(&heading.take().unwrap_or_default());
                    let mut unique = anchor.clone();
                    for number in 1.. {
                        if page.anchors.insert(unique) {
                            break;
                        }
                        unique = format!("{anchor}-{number}");
                    }
                }
                Event::Text(part) | Event::Code(part) => {
                    if let Some(heading) = &mut heading {
                        heading.push_str(&part);
                    }
                }
                _ => {}
            }
        }
        page
    }
}

/// Returns the anchor that GitHub and mdBook make of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Reads every page in Markdown.
fn pages() -> anyhow::Result<BTreeMap<PathBuf, Page>> {
    let read = |file: PathBuf| {
        let text = fs::read_to_string(workspace::root().join(&file));
        let page = Page::read(&text.with_context(|| format!("reading {}", file.display()))?);
        Ok((file, page))
    };
    git_files(&["*.md"])?.into_iter().map(read).collect()
}

/// Returns the file that a link of a page leads to.
fn target(page: &Path, link: &str) -> PathBuf {
    match link.split('#').next() {
        Some("") | None => page.to_owned(),
        Some(path) => normal(page.parent().unwrap_or(Path::new("")), path),
    }
}

/// Describes each link that leads nowhere, or to a folder: a book has no page for one.
fn broken_links() -> anyhow::Result<Vec<String>> {
    let root = workspace::root();
    let pages = pages()?;
    let mut problems = Vec::new();
    for (file, page) in &pages {
        for (line, link) in &page.links {
            let to = target(file, link);
            let anchor = link.split_once('#').map_or("", |(_, anchor)| anchor);
            let problem = match pages.get(&to) {
                Some(there) if !anchor.is_empty() && !there.anchors.contains(anchor) => {
                    "there is no such heading"
                }
                Some(_) => continue,
                None if root.join(&to).is_dir() => "is a folder; name a file in it",
                None if root.join(&to).exists() => continue,
                None => "there is no such file",
            };
            problems.push(format!("{}:{line}: {link}: {problem}", file.display()));
        }
    }
    Ok(problems)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_link_in_the_documentation_leads_somewhere() {
        let problems = broken_links().unwrap();
        assert!(problems.is_empty(), "{}", problems.join("\n"));
    }

    #[test]
    fn links_and_headings_of_a_page_are_found() {
        let page = Page::read(
            "# What `it` is\n\n## Twice\n\n## Twice\n\n| a |\n|---|\n| [b](c.md#d) |\n\n[x](https://e.org)\n",
        );
        assert_eq!(page.links, [(9, "c.md#d".to_owned())]);
        assert_eq!(page.anchors.into_iter().collect::<Vec<_>>(), ["twice", "twice-1", "what-it-is"]);
    }

    #[test]
    fn the_summary_leads_from_the_folder_above() {
        let summary = "# Summary\n\n- [A](checks/README.md)\n- [B](../B.md)\n";
        let wanted =
            "# Summary\n\n- [A](docs/checks/README.md)\n  - [SP001](docs/checks/SP001.md)\n- [B](B.md)\n";
        assert_eq!(summary_from_root(summary, &["docs/checks/SP001.md".into()]), wanted);
    }

    #[test]
    fn the_summary_has_every_page() {
        let summary = Page::read(&fs::read_to_string(workspace::root().join("docs/SUMMARY.md")).unwrap());
        let listed: BTreeSet<PathBuf> =
            summary.links.iter().map(|(_, link)| normal(Path::new("docs"), link)).collect();
        let pages = git_files(&["docs/*.md"]).unwrap();
        let is_page = |file: &PathBuf| !file.ends_with("SUMMARY.md") && !file.starts_with("docs/checks");
        let missing: Vec<_> =
            pages.into_iter().filter(is_page).filter(|file| !listed.contains(file)).collect();
        assert!(missing.is_empty(), "docs/SUMMARY.md lacks {missing:?}");
    }
}
