/*!
`cargo xtask docs`: every link in the repository's Markdown leads somewhere, and docs/ makes a book (mdBook).

```text
docs/, SECURITY.md and others ─▶ target/book-source ─ mdbook ─▶ target/book/index.html
```

The book has the pages at the top of the repository too, so that links between pages are the same there and in a checkout.
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
const IN_BOOK: [&str; 8] = [
    "docs",
    "packaging",
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "SPECIFICATION.md",
];

/// Checks the links and builds the book. Returns whether every link leads somewhere; says which does not.
pub fn run() -> anyhow::Result<bool> {
    let problems = broken_links()?;
    for problem in &problems {
        println!("{problem}");
    }
    let book = build()?;
    println!("the book is {}", book.display());
    Ok(problems.is_empty())
}

/// The book's first page.
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
    write(&source.join("SUMMARY.md"), &summary_from_root(&summary))?;
    let settings = fs::read_to_string(root.join("docs/book.toml")).context("reading docs/book.toml")?;
    write(&source.join("book.toml"), &settings)?;
    let mut build = tool::command(&mdbook.to_string_lossy());
    build.arg("build").arg("--dest-dir").arg(&book).arg(&source).env("RUST_LOG", "warn");
    tool::output(&mut build).context("building the book")?;
    let first = book.join("docs/introduction.html");
    ensure!(first.exists(), "mdbook made no {}", first.display());
    Ok(book.join("index.html"))
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    fs::write(path, text).with_context(|| format!("writing {}", path.display()))
}

/// Rewrites the links of docs/SUMMARY.md to lead from the folder above.
fn summary_from_root(summary: &str) -> String {
    let line = |line: &str| match line.split_once("](") {
        Some((before, link)) => {
            let (link, after) = link.split_once(')').unwrap_or((link, ""));
            format!("{before}]({}){after}\n", normal(Path::new("docs"), link).display())
        }
        None => format!("{line}\n"),
    };
    summary.lines().map(line).collect()
}

/// Files that git knows, or would add.
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

/// The anchor that GitHub and mdBook make of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect()
}

/// Describes each link that leads nowhere, or to a folder: a book has no page for one.
fn broken_links() -> anyhow::Result<Vec<String>> {
    let root = workspace::root();
    let mut pages: BTreeMap<PathBuf, Page> = BTreeMap::new();
    for file in git_files(&["*.md"])? {
        let text =
            fs::read_to_string(root.join(&file)).with_context(|| format!("reading {}", file.display()))?;
        pages.insert(file, Page::read(&text));
    }
    let mut problems = Vec::new();
    for (file, page) in &pages {
        for (line, link) in &page.links {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let to = if path.is_empty() {
                file.clone()
            } else {
                normal(file.parent().unwrap_or(Path::new("")), path)
            };
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
        let summary = "# Summary\n\n- [A](a.md)\n- [B](../B.md)\n";
        assert_eq!(summary_from_root(summary), "# Summary\n\n- [A](docs/a.md)\n- [B](B.md)\n");
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
