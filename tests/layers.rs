//! The house rules as a test: ranks of modules, heads of files, unsafe code, sizes and leftovers.
//!
//! Reads the sources as text; each rule is a function from one file to what is wrong with it, and is itself
//! tested on a file that breaks it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;

/// A module imports only from modules of lower rank.
const RANKS: [(&str, u32); 18] = [
    ("base", 0),
    ("format", 1),
    ("block", 2),
    ("index", 3),
    ("journal", 3),
    ("volume", 4),
    ("maintain", 5),
    ("vfs", 5),
    ("hook", 5),
    ("schedule", 5),
    ("catalog", 6),
    ("adapter", 6),
    ("engine", 7),
    ("control", 8),
    ("bench", 8),
    ("api", 9),
    ("daemon", 10),
    ("cli", 11),
];
/// Wire the modules together, so may name all.
const ROOTS: [&str; 2] = ["src/lib.rs", "src/main.rs"];
const UNSAFE_FILE: &str = "src/base/map.rs";
const LINES_MAX: usize = 800;
const RUST_FOLDERS: [&str; 6] = ["src/", "fuse/", "tests/", "benches/", "fuzz/", "examples/"];
const TEXT_ENDINGS: [&str; 10] = ["rs", "md", "toml", "sh", "yml", "yaml", "py", "sql", "service", "txt"];
/// Folders that start with a dot and are ours.
const DOT_FOLDERS: [&str; 3] = [".ci", ".config", ".github"];

/// One text file, its path relative to the repository.
struct Source {
    path: String,
    text: String,
}

impl Source {
    fn of(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    fn is_rust(&self) -> bool {
        self.path.ends_with(".rs") && RUST_FOLDERS.iter().any(|folder| self.path.starts_with(folder))
    }

    /// The modules from the crate's root to this file: `src/base/sim/mod.rs` is `base`, `sim`.
    fn module_path(&self) -> Option<Vec<&str>> {
        let inside = self.path.strip_prefix("src/")?.strip_suffix(".rs")?;
        let mut parts: Vec<&str> = inside.split('/').collect();
        if parts.last() == Some(&"mod") {
            parts.pop();
        }
        Some(parts)
    }
}

fn repository() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut sources = Vec::new();
    collect(root, root, &mut sources);
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(sources.iter().any(|source| source.path == UNSAFE_FILE), "the walk found no sources");
    sources
}

fn collect(root: &Path, folder: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = entry.path();
        if entry.file_type().unwrap().is_dir() {
            let hidden = name.starts_with('.') && !DOT_FOLDERS.contains(&name.as_str());
            if !hidden && name != "target" {
                collect(root, &path, sources);
            }
            continue;
        }
        if TEXT_ENDINGS.iter().any(|ending| name.ends_with(&format!(".{ending}"))) {
            let relative = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            sources.push(Source { path: relative, text: fs::read_to_string(&path).unwrap() });
        }
    }
}

fn check(rule: fn(&Source) -> Vec<String>) {
    let problems: Vec<String> = repository().iter().flat_map(rule).collect();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// How much a rule finds wrong with a file of this text.
fn verdict(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) -> usize {
    rule(&Source::of(path, text)).len()
}

/// The text without comments, and with the contents of strings and characters blanked.
fn code_of(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut code = String::new();
    let mut at = 0;
    while at < chars.len() {
        let next = chars.get(at + 1).copied();
        match chars[at] {
            '/' if next == Some('/') => at = position(&chars, at, |rest| rest[0] == '\n'),
            '/' if next == Some('*') => at = block_comment_end(&chars, at),
            '"' => {
                let hashes = code.chars().rev().take_while(|&c| c == '#').count();
                let raw = code[..code.len() - hashes].ends_with('r');
                at = if raw { raw_string_end(&chars, at, hashes) } else { string_end(&chars, at) };
                code.push_str("\"\"");
            }
            '\'' if next == Some('\\') => at = position(&chars, at + 3, |rest| rest[0] == '\'') + 1,
            '\'' if chars.get(at + 2) == Some(&'\'') => at += 3,
            other => {
                code.push(other);
                at += 1;
            }
        }
    }
    code
}

/// The first place from `from` on where `found` holds, or the end.
fn position(chars: &[char], from: usize, found: impl Fn(&[char]) -> bool) -> usize {
    (from..chars.len()).find(|&at| found(&chars[at..])).unwrap_or(chars.len())
}

fn block_comment_end(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at < chars.len() {
        if chars[at..].starts_with(&['/', '*']) {
            depth += 1;
            at += 2;
        } else if chars[at..].starts_with(&['*', '/']) {
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

fn string_end(chars: &[char], start: usize) -> usize {
    let mut at = start + 1;
    while at < chars.len() && chars[at] != '"' {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}

fn raw_string_end(chars: &[char], start: usize, hashes: usize) -> usize {
    let mut close = vec!['"'];
    close.extend(std::iter::repeat_n('#', hashes));
    position(chars, start + 1, |rest| rest.starts_with(&close)) + close.len()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Words, `::` and single signs.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        if !first.is_whitespace() {
            tokens.push(&rest[..length]);
        }
        rest = &rest[length..];
    }
    tokens
}

/// The names directly below the crate's root that the code uses; `depth` is the length of its module path.
fn root_names<'a>(tokens: &[&'a str], depth: usize) -> Vec<&'a str> {
    let mut names = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let mut supers = 0;
        while tokens[at..].starts_with(&["super", "::"]) {
            supers += 1;
            at += 2;
        }
        let from_root = ["crate", "stillpoint"].iter().any(|root| tokens[at..].starts_with(&[root, "::"]));
        if from_root {
            names.extend(first_names(&tokens[at + 2..]));
        } else if supers > 0 && supers >= depth {
            names.extend(first_names(&tokens[at..]));
        }
        at += 1;
    }
    names.retain(|name| !["self", "*", "super"].contains(name));
    names
}

/// The first name of a path, or of each path in a group.
fn first_names<'a>(tokens: &[&'a str]) -> Vec<&'a str> {
    if tokens.first() != Some(&"{") {
        return tokens.first().copied().into_iter().collect();
    }
    let mut names = Vec::new();
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match *token {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            break;
        }
        let starts = depth == 1 && ["{", ","].contains(token);
        names.extend(tokens.get(at + 1).filter(|next| starts && **next != "}"));
    }
    names
}

fn rank(module: &str) -> Option<u32> {
    RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank)
}

fn imports_rise(source: &Source) -> Vec<String> {
    let Some(path) = source.module_path().filter(|_| !ROOTS.contains(&source.path.as_str())) else {
        return Vec::new();
    };
    let Some(own) = rank(path[0]) else {
        return vec![format!("{}: module {} has no rank in tests/layers.rs", source.path, path[0])];
    };
    let code = code_of(&source.text);
    let mut problems = Vec::new();
    for name in root_names(&tokens(&code), path.len()) {
        match rank(name) {
            _ if name == path[0] => {}
            Some(rank) if rank < own => {}
            Some(rank) => problems.push(format!(
                "{}: imports {name} (rank {rank}) from {} (rank {own}); only lower ranks may be",
                source.path, path[0]
            )),
            None => problems.push(format!(
                "{}: imports {name} through the crate's root; name the module that has it",
                source.path
            )),
        }
    }
    problems
}

fn fuse_stands_alone(source: &Source) -> Vec<String> {
    let imports = match source.path.as_str() {
        "fuse/Cargo.toml" => {
            let names = source.text.lines().filter_map(|line| line.split(['=', '.', ' ']).next());
            names.filter(|name| *name == "stillpoint").count()
        }
        path if path.starts_with("fuse/") && source.is_rust() => {
            tokens(&code_of(&source.text)).iter().filter(|token| **token == "stillpoint").count()
        }
        _ => 0,
    };
    vec![format!("{}: the fuse crate must not know the root crate", source.path); imports.min(1)]
}

fn has_head(source: &Source) -> Vec<String> {
    if !source.is_rust() || source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![format!("{}: must begin with a //! head that says what the file is for", source.path)]
}

/// Signs of unfinished work, in pieces so that this file has none.
fn markers() -> [String; 6] {
    let pieces = [["TO", "DO"], ["FIX", "ME"], ["X", "XX"], ["HA", "CK"], ["for", " now"], ["#[ig", "nore"]];
    pieces.map(|pieces| pieces.concat())
}

fn has_no_leftovers(source: &Source) -> Vec<String> {
    let mut problems = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for marker in markers().iter().filter(|marker| contains_word(line, marker)) {
            problems.push(format!("{}:{}: leftover {marker:?}", source.path, index + 1));
        }
    }
    problems
}

/// Whether `word` stands in `line` and is not part of a longer word.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word)
        .any(|(at, _)| !line[..at].ends_with(is_word) && !line[at + word.len()..].starts_with(is_word))
}

fn has_no_unsafe(source: &Source) -> Vec<String> {
    if !source.is_rust() || source.path == UNSAFE_FILE {
        return Vec::new();
    }
    let code = code_of(&source.text);
    let found = tokens(&code).into_iter().filter(|token| ["unsafe", "unsafe_code"].contains(token)).count();
    vec![format!("{}: unsafe code belongs to {UNSAFE_FILE}", source.path); found.min(1)]
}

fn is_short(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if !source.is_rust() || lines <= LINES_MAX {
        return Vec::new();
    }
    vec![format!("{}: {lines} lines, more than {LINES_MAX}: split it", source.path)]
}

/// Names of places that packages and images come from, in pieces so that this file has none.
fn registry_hosts() -> [String; 10] {
    let pieces = [
        ["crates", ".io"],
        ["docker", ".io"],
        ["ghcr", ".io"],
        ["quay", ".io"],
        ["gcr", ".io"],
        ["mcr.micro", "soft.com"],
        ["npmjs", ".org"],
        ["pypi", ".org"],
        ["proxy.go", "lang.org"],
        ["arti", "factory"],
    ];
    pieces.map(|pieces| pieces.concat())
}

fn names_no_registry(source: &Source) -> Vec<String> {
    let hosts = registry_hosts();
    let named = hosts.iter().filter(|host| contains_word(&source.text, host));
    named.map(|host| format!("{}: names the registry host {host}", source.path)).collect()
}

#[test]
fn modules_import_from_lower_ranks_only() {
    check(imports_rise);
    for text in [
        "use crate::cli;",
        "use crate::{base::{A, cli}, vfs::B};",
        "fn f() { crate::maintain::gc() }",
        "use super::super::bench::X;",
        "use crate::Store;",
        "use stillpoint::vfs;",
        "let s = \"//\"; use crate::vfs;",
    ] {
        assert_eq!(verdict(imports_rise, "src/volume/view.rs", text), 1, "{text}");
    }
    for text in [
        "use crate::{base::{A, cli}, index::B, volume::C};",
        "use super::vfs; pub(crate) use super::super::journal::J;",
        "/// [`crate::cli`]\nconst A: &str = \"crate::cli\"; /* crate::cli /* */ crate::cli */",
        "const A: &str = r#\"\" crate::cli\"#; fn f<'a>() { '\"'; '\\''; }",
    ] {
        assert_eq!(verdict(imports_rise, "src/volume/view.rs", text), 0, "{text}");
    }
    assert_eq!(verdict(imports_rise, "src/journal/mod.rs", "use crate::index::Hint;"), 1, "siblings");
    assert_eq!(verdict(imports_rise, "src/utilities.rs", ""), 1, "no rank");
    assert_eq!(verdict(imports_rise, "src/main.rs", "use stillpoint::cli;"), 0);
}

#[test]
fn the_fuse_crate_knows_nothing_of_the_root() {
    check(fuse_stands_alone);
    assert_eq!(verdict(fuse_stands_alone, "fuse/src/session.rs", "use stillpoint::vfs;"), 1);
    assert_eq!(verdict(fuse_stands_alone, "fuse/tests/a.rs", "use stillpoint_fuse::Session;"), 0);
    assert_eq!(verdict(fuse_stands_alone, "fuse/Cargo.toml", "stillpoint = { path = \"..\" }"), 1);
    assert_eq!(verdict(fuse_stands_alone, "fuse/Cargo.toml", "name = \"stillpoint-fuse\""), 0);
}

#[test]
fn every_file_says_what_it_is_for() {
    check(has_head);
    assert_eq!(verdict(has_head, "benches/a.rs", "use std::io;\n//! Late."), 1);
}

#[test]
fn no_leftover_markers() {
    check(has_no_leftovers);
    for marker in markers() {
        assert_eq!(verdict(has_no_leftovers, "docs/a.md", &format!("a\n({marker}) b")), 1, "{marker}");
    }
    assert_eq!(verdict(has_no_leftovers, "src/a.rs", "mktemp XXXXXX"), 0);
}

#[test]
fn unsafe_code_only_where_files_are_mapped() {
    check(has_no_unsafe);
    assert_eq!(verdict(has_no_unsafe, "fuse/src/a.rs", "unsafe { f() }"), 1);
    assert_eq!(verdict(has_no_unsafe, "src/a.rs", "#![allow(unsafe_code)]"), 1);
    assert_eq!(verdict(has_no_unsafe, "src/a.rs", "// unsafe\n\"unsafe\""), 0);
}

#[test]
fn no_file_is_too_long() {
    check(is_short);
    assert_eq!(verdict(is_short, "tests/a.rs", &"\n".repeat(LINES_MAX + 1)), 1);
}

#[test]
fn no_registry_host_is_named() {
    check(names_no_registry);
    for host in registry_hosts() {
        assert_eq!(verdict(names_no_registry, ".ci/a.sh", &format!("pull {host}/x")), 1, "{host}");
    }
}
