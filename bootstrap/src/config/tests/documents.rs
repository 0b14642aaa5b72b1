//! The examples of settings in the documents are valid.

use std::fs;
use std::path::Path;

use super::*;

/// The contents of the document's code blocks in this language.
fn blocks<'a>(document: &'a str, language: &str) -> Vec<String> {
    let fence = format!("```{language}");
    let mut lines = document.lines();
    let mut blocks = Vec::new();
    while lines.any(|line| line.trim() == fence) {
        let block: Vec<&'a str> = lines.by_ref().take_while(|line| line.trim() != "```").collect();
        blocks.push(block.join("\n"));
    }
    blocks
}

#[test]
fn settings_in_the_documents_are_valid() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut found = 0;
    for name in ["from-nestjs.md", "runbook.md"] {
        let document = fs::read_to_string(folder.join(name)).unwrap();
        for block in blocks(&document, "toml") {
            found += 1;
            let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
            fs::write(file.path(), &block).unwrap();
            let layers = Layers { file: Some(file.path().to_owned()), ..Layers::default() };
            let loaded = Config::load(layers);
            assert!(loaded.is_ok(), "{name}: {}\n{block}", loaded.unwrap_err());
        }
    }
    assert!(found >= 4, "the documents have examples: {found}");
}
