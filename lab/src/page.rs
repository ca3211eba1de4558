//! Code blocks of the documentation's pages: scenarios play what a page prints.

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};

/// A fenced code block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// The word behind the fence, such as `console`.
    pub language: String,
    /// The lines between the fences.
    pub text: String,
}

/// Returns the fenced code blocks of a page in Markdown.
#[must_use]
pub fn blocks(page: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut is_inside = false;
    for event in Parser::new(page) {
        match event {
            Event::Start(Tag::CodeBlock(CodeBlockKind::Fenced(language))) => {
                is_inside = true;
                blocks.push(Block { language: language.into_string(), text: String::new() });
            }
            Event::End(TagEnd::CodeBlock) => is_inside = false,
            Event::Text(text) if is_inside => {
                blocks.last_mut().expect("a block has begun").text.push_str(&text);
            }
            _ => {}
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fenced_blocks_are_found_and_indented_ones_are_not() {
        let page =
            "text\n\n    indented\n\n```console\n# one\n\ntwo\n```\n- item\n  ```toml\n  a = 1\n  ```\n";
        let block = |language: &str, text: &str| Block { language: language.into(), text: text.into() };
        assert_eq!(blocks(page), [block("console", "# one\n\ntwo\n"), block("toml", "a = 1\n")]);
    }
}
