//! The sources of the library, read as far as a test of their architecture needs it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A file of the library.
pub(crate) struct Source {
    /// Path below `src`.
    pub(crate) name: String,
    /// The module of the crate's root it belongs to; `lib` for the root itself.
    pub(crate) module: String,
    /// Its code without comments, text of literals, and what is under `#[cfg(test)]`.
    pub(crate) code: String,
    /// Lines of the whole file.
    pub(crate) lines: usize,
    /// How many modules deep it is: 1 for `router/mod.rs`, 2 for `router/trie.rs`.
    depth: usize,
}

/// The files of the library, those of its tests excepted.
pub(crate) fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    let mut sources = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&root).expect("below src");
        let mut path: Vec<String> =
            relative.with_extension("").iter().map(|part| part.to_string_lossy().into_owned()).collect();
        path.pop_if(|last| last == "mod");
        // The program is another crate: it sees what every user of the library sees.
        let is_program =
            ["allocator", "main", "cli", "passwd", "process", "reload"].contains(&path[0].as_str());
        if is_program || path.iter().any(|part| part == "tests" || part == "simulation") {
            continue;
        }
        let text = fs::read_to_string(&file).expect("readable");
        let name = relative.to_string_lossy().into_owned();
        sources.push(Source::new(name, path, &text));
    }
    assert!(sources.len() > 40, "found only {} files", sources.len());
    sources
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

impl Source {
    fn new(name: String, path: Vec<String>, text: &str) -> Self {
        let module = path[0].clone();
        let code = without_tests(&code_of(text));
        Self { name, module, code, lines: text.lines().count(), depth: path.len() }
    }

    /// The top-level modules it names, by `crate::…` or by so many `super::` that they reach the root.
    pub(crate) fn uses(&self) -> BTreeSet<String> {
        let mut used = BTreeSet::new();
        for prefix in ["crate::", &"super::".repeat(self.depth)] {
            for (at, _) in self.code.match_indices(prefix) {
                if !self.code[..at].ends_with(is_name) {
                    used.extend(first_names(&self.code[at + prefix.len()..]));
                }
            }
        }
        used.remove(&self.module);
        used
    }

    /// Whether `word` stands in the code, and not as a part of a longer name.
    pub(crate) fn mentions(&self, word: &str) -> bool {
        self.code.match_indices(word).any(|(at, _)| {
            !self.code[..at].ends_with(is_name) && !self.code[at + word.len()..].starts_with(is_name)
        })
    }
}

fn is_name(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// `a` of `a::b`; `a` and `b` of `{a::c, b}`.
fn first_names(code: &str) -> Vec<String> {
    let name = |text: &str| text.trim_start().chars().take_while(|character| is_name(*character)).collect();
    let Some(group) = code.strip_prefix('{') else { return vec![name(code)] };
    let mut names = vec![name(group)];
    let mut depth = 0;
    for (at, character) in group.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => names.push(name(&group[at + 1..])),
            _ => {}
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

/// Blanks comments and the text of string and character literals.
fn code_of(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment_len(rest)
        } else if character == '"' {
            string_len(rest)
        } else if character == 'r' && !code.trim_end_matches('b').ends_with(is_name) {
            raw_string_len(rest)
        } else if character == '\'' {
            character_len(rest)
        } else {
            0
        };
        if skipped == 0 {
            code.push(character);
            rest = &rest[character.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..skipped].matches('\n'));
            rest = &rest[skipped..];
        }
    }
    code
}

fn block_comment_len(rest: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < rest.len() {
        let bytes = &rest.as_bytes()[at..];
        if bytes.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                break;
            }
        } else {
            at += 1;
        }
    }
    at
}

fn string_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

/// 0 if it is no raw string.
fn raw_string_len(rest: &str) -> usize {
    let after = rest[1..].trim_start_matches('#');
    let hashes = rest.len() - 1 - after.len();
    let Some(text) = after.strip_prefix('"') else { return 0 };
    let end = format!("\"{}", "#".repeat(hashes));
    text.find(&end).map_or(rest.len(), |found| 2 + hashes + found + end.len())
}

/// 0 for a lifetime.
fn character_len(rest: &str) -> usize {
    let text = &rest[1..];
    let len = match text.strip_prefix('\\') {
        // What is escaped may be a quote itself.
        Some(escaped) => escaped.char_indices().skip(1).find(|(_, next)| *next == '\'').map(|(at, _)| 1 + at),
        None => text.chars().next().map(char::len_utf8).filter(|len| text[*len..].starts_with('\'')),
    };
    len.map_or(0, |len| 1 + len + 1)
}

/// Leaves out every item under `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    const ATTRIBUTE: &str = "#[cfg(test)]";
    let mut kept = String::new();
    let mut rest = code;
    while let Some((before, after)) = rest.split_once(ATTRIBUTE) {
        kept.push_str(before);
        rest = &after[item_len(after)..];
    }
    kept + rest
}

/// To the end of the item: its semicolon, or the brace that closes its body.
fn item_len(code: &str) -> usize {
    let mut depth = 0;
    for (at, character) in code.char_indices() {
        match character {
            '{' | '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

#[test]
fn comments_literals_and_tests_do_not_count() {
    let text = r##"
use crate::{a::{x, y}, b}; // crate::c
/* crate::d /* nested */ crate::e */
const S: &str = "crate::f \" crate::g";
const R: &str = r#"crate::h " "#;
const C: [char; 4] = ['"', '\'', '\u{22}', 'ä'];
fn lifetime<'a>(x: &'a str) -> char { crate::i::j(x); 'ä' }
#[cfg(test)]
mod tests { use crate::k; fn f() { if true { } } }
#[cfg(test)]
use crate::{l, m};
#[cfg(test)]
fn g(x: [u8; 2]) -> u8 { crate::n::o() }
fn last() { super::p::q(); not_super::r(); self::crate_::s(); }
"##;
    let source = Source::new("z.rs".to_owned(), vec!["z".to_owned()], text);
    assert_eq!(source.uses(), ["a", "b", "i", "p"].map(String::from).into());
    assert!(source.mentions("lifetime") && !source.mentions("life"));
    let inner = Source::new(
        "z/y.rs".to_owned(),
        vec!["z".to_owned(), "y".to_owned()],
        "super::a::b(); super::super::c::d();",
    );
    assert_eq!(inner.uses(), ["c"].map(String::from).into());
}
