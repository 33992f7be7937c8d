//! YAML text → tree, with the line of every key and all repeated keys at once.
//!
//! The parser stops at the first repeated key. So that the rest of a file is still judged, repeated blocks are found
//! here by their indentation, reported, blanked out, and the text is parsed again.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::Path;

use config::{ConfigError, File, FileFormat, Source as _, ValueKind};

use super::problem::Problem;
use super::value::{Kind, Source, Value, show_path};

/// Largest configuration that is read, bytes.
pub(crate) const MAX_BYTES: u64 = 1 << 20;

/// Columns of indentation (and of `- `, `? ` in a row) that a line may begin with: the parser recurses for each.
const MAX_INDENT: usize = 200;

/// Parses a file's text. What cannot be used is in the problems; the tree holds the rest.
pub(crate) fn parse(text: &str, path: Option<&Path>) -> (Value, Vec<Problem>) {
    let source = |line| match path {
        None => Source::Embedded,
        Some(path) => Source::File { path: path.to_owned(), line },
    };
    let map = Outline::of(text);
    let mut problems = Vec::new();
    let mut root = Value::empty(source(None));
    if text.lines().all(|line| matches!(line.trim(), "" | "---") || line.trim().starts_with('#')) {
        return (root, problems);
    }
    let indent = |line: &str| line.bytes().take_while(|b| b" \t-?".contains(b)).count();
    if let Some(line) = text.lines().position(|line| indent(line) > MAX_INDENT) {
        let reason = format!("not readable as YAML: nested more deeply than {MAX_INDENT} columns");
        problems.push(Problem { source: source(Some(line + 1)), key: String::new(), reason, nearest: None });
        return (root, problems);
    }
    let parsed = collect(text).or_else(|wrong| {
        if !wrong.contains("duplicated key") || map.repeated.is_empty() {
            return Err(wrong);
        }
        for (line, keys) in &map.repeated {
            let first = map.lines.get(keys).copied().unwrap_or_default();
            problems.push(Problem {
                source: source(Some(*line)),
                key: show_path(keys),
                reason: format!("the key is there twice, first in line {first}; keep one"),
                nearest: None,
            });
        }
        collect(&map.without_repeated(text))
    });
    match parsed {
        Ok(table) => {
            let mut keys = Vec::new();
            root.kind = Kind::Table(convert_table(table, &mut keys, &map, &source));
        }
        Err(reason) => problems.push(Problem {
            source: source(None),
            key: String::new(),
            reason: format!("not readable as YAML: {reason}"),
            nearest: None,
        }),
    }
    (root, problems)
}

fn collect(text: &str) -> Result<config::Map<String, config::Value>, String> {
    File::from_str(text, FileFormat::Yaml).collect().map_err(|wrong| match wrong {
        ConfigError::FileParse { cause, .. } => cause.to_string(),
        other => other.to_string(),
    })
}

fn convert_table(
    table: config::Map<String, config::Value>,
    keys: &mut Vec<String>,
    map: &Outline,
    source: &impl Fn(Option<usize>) -> Source,
) -> BTreeMap<String, Value> {
    let mut out = BTreeMap::new();
    for (key, value) in table {
        keys.push(key.clone());
        out.insert(key, convert(value, keys, map, source));
        keys.pop();
    }
    out
}

fn convert(
    value: config::Value,
    keys: &mut Vec<String>,
    map: &Outline,
    source: &impl Fn(Option<usize>) -> Source,
) -> Value {
    let kind = match value.kind {
        ValueKind::Nil => Kind::Null,
        ValueKind::Boolean(b) => Kind::Bool(b),
        ValueKind::I64(i) => Kind::Int(i.into()),
        ValueKind::I128(i) => Kind::Int(i),
        ValueKind::U64(i) => Kind::Int(i.into()),
        ValueKind::U128(i) => i128::try_from(i).map_or(Kind::Float(i as f64), Kind::Int),
        ValueKind::Float(x) => Kind::Float(x),
        ValueKind::String(text) => Kind::Text(text),
        ValueKind::Array(items) => Kind::List(items.into_iter().map(|item| convert(item, keys, map, source)).collect()),
        ValueKind::Table(table) => Kind::Table(convert_table(table, keys, map, source)),
    };
    Value { kind, source: source(map.line(keys)) }
}

/// The lines of the keys of a block-style text.
#[derive(Debug, Default)]
struct Outline {
    /// Line, from 1, of each key's first appearance.
    lines: BTreeMap<Vec<String>, usize>,
    /// Line and path of each further appearance.
    repeated: Vec<(usize, Vec<String>)>,
}

impl Outline {
    fn of(text: &str) -> Outline {
        let mut outline = Outline::default();
        let mut open: Vec<(usize, String)> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let Some((indent, key)) = key_of(line) else { continue };
            while open.last().is_some_and(|(outer, _)| *outer >= indent) {
                open.pop();
            }
            open.push((indent, key));
            let keys: Vec<String> = open.iter().map(|(_, key)| key.clone()).collect();
            match outline.lines.entry(keys) {
                Entry::Occupied(first) => outline.repeated.push((number + 1, first.key().clone())),
                Entry::Vacant(first) => {
                    first.insert(number + 1);
                }
            }
        }
        // Below a repeated block everything may look repeated: one report for the block is enough.
        let blocks = outline.repeated.clone();
        let inside = |line: usize, keys: &[String], (start, block): &(usize, Vec<String>)| {
            *start < line && block.len() < keys.len() && keys.starts_with(block)
        };
        outline.repeated.retain(|(line, keys)| !blocks.iter().any(|block| inside(*line, keys, block)));
        outline
    }

    /// The line of this key, or of the nearest key above it that has one.
    fn line(&self, keys: &[String]) -> Option<usize> {
        (1..=keys.len()).rev().find_map(|n| self.lines.get(&keys[..n]).copied())
    }

    /// The text with every repeated key and what is indented below it blanked out. Line numbers stay.
    fn without_repeated(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut dropping: Option<usize> = None;
        for (number, line) in text.lines().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if dropping.is_some_and(|outer| !line.trim().is_empty() && indent <= outer) {
                dropping = None;
            }
            if self.repeated.iter().any(|(at, _)| *at == number + 1) {
                dropping = Some(indent);
            }
            if dropping.is_none() {
                out.push_str(line);
            }
            out.push('\n');
        }
        out
    }
}

/// Indentation and key of a line that opens a key in block style.
fn key_of(line: &str) -> Option<(usize, String)> {
    let rest = line.trim_start();
    let indent = line.len() - rest.len();
    let first = rest.chars().next()?;
    let (key, after) = match first {
        '#' | '-' | '[' | '{' | ']' | '}' => return None,
        '"' | '\'' => {
            let end = rest[1..].find(first)? + 1;
            (&rest[1..end], &rest[end + 1..])
        }
        _ => {
            let end = rest.find(": ").or_else(|| rest.trim_end().ends_with(':').then(|| rest.trim_end().len() - 1))?;
            (rest[..end].trim_end(), &rest[end..])
        }
    };
    after.trim_start().starts_with(':').then(|| (indent, key.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (Value, Vec<Problem>) {
        parse(text, Some(Path::new("c.yaml")))
    }

    #[test]
    fn every_value_knows_the_line_of_its_key() {
        let (root, problems) = file("# top\naxon:\n  port: 1\nscoring:\n  gpus:\n    \"NVIDIA L4\": { base: 1 }\n");
        assert_eq!(problems, []);
        let line = |keys: &[&str]| {
            let keys: Vec<String> = keys.iter().map(|k| (*k).to_owned()).collect();
            root.at(&keys).unwrap().source.to_string()
        };
        assert_eq!(line(&["axon", "port"]), "c.yaml line 3");
        assert_eq!(line(&["scoring", "gpus", "NVIDIA L4", "base"]), "c.yaml line 6");
    }

    #[test]
    fn all_repeated_keys_are_reported_and_the_rest_is_still_read() {
        let (root, problems) = file("axon:\n  port: 1\n  port: 2\nssh:\n  port: 3\naxon:\n  ip: x\nnetuid: 4\n");
        let told: Vec<String> = problems.iter().map(Problem::to_string).collect();
        assert_eq!(
            told,
            [
                "c.yaml line 3: axon.port: the key is there twice, first in line 2; keep one",
                "c.yaml line 6: axon: the key is there twice, first in line 1; keep one",
            ]
        );
        assert_eq!(root.get("netuid").unwrap().kind, Kind::Int(4));
    }

    #[test]
    fn text_that_is_not_yaml_is_told_with_its_line() {
        let (_, problems) = file("axon: [1, 2\nport: : :\n");
        assert_eq!(problems.len(), 1);
        assert!(problems[0].reason.contains("line"), "{}", problems[0]);
    }

    #[test]
    fn bottomless_nesting_is_refused_before_it_is_parsed() {
        for text in
            ["- ".repeat(100_000), "? ".repeat(100_000), format!("{}a: 1", " ".repeat(100_000)), "[".repeat(100_000)]
        {
            assert_eq!(file(&text).1.len(), 1);
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-z]{1,2}: |[a-z]:\n|  |- |\n|\"|'|[0-9.]|\\[|\\{|#|\\||&a |\\*a |!!int |<<: |é){0,40}") {
            let _ = file(&text);
        }
    }

    #[test]
    fn an_empty_file_changes_nothing_and_a_list_at_the_top_is_refused() {
        assert_eq!(file("# only a comment\n\n").1, []);
        assert_eq!(file("- a\n- b\n").1.len(), 1);
    }
}
