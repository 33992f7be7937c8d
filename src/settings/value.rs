//! The tree that the layers are merged into: plain values, each knowing where it was written.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// `config.yaml` as shipped, embedded in the binary.
    Embedded,
    /// The file given by `--config`.
    File {
        /// The file.
        path: PathBuf,
        /// The line of the key, from 1, where it could be found.
        line: Option<usize>,
    },
    /// An environment variable, by its full name.
    Env(String),
    /// A flag, with its dashes.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Embedded => f.write_str("shipped config.yaml"),
            Source::File { path, line: Some(line) } => write!(f, "{} line {line}", path.display()),
            Source::File { path, line: None } => write!(f, "{}", path.display()),
            Source::Env(name) => write!(f, "environment {name}"),
            Source::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Value {
    pub(crate) kind: Kind,
    pub(crate) source: Source,
}

/// What a value is, before any key gives it a type.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Kind {
    Null,
    Bool(bool),
    Int(i128),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    Table(BTreeMap<String, Value>),
}

impl Kind {
    /// What was found, for a message: `text "abc"`, `the number 7`.
    pub(crate) fn found(&self) -> String {
        match self {
            Kind::Null => "nothing".to_owned(),
            Kind::Bool(b) => format!("the switch {b}"),
            Kind::Int(i) => format!("the number {i}"),
            Kind::Float(x) => format!("the number {x}"),
            Kind::Text(t) => format!("{t:?}"),
            Kind::List(l) => format!("a list of {}", l.len()),
            Kind::Table(_) => "a table of keys".to_owned(),
        }
    }
}

impl Value {
    /// A table without keys.
    pub(crate) fn empty(source: Source) -> Self {
        Value { kind: Kind::Table(BTreeMap::new()), source }
    }

    /// A text, as environment and flags give it.
    pub(crate) fn text(text: &str, source: Source) -> Self {
        Value { kind: Kind::Text(text.to_owned()), source }
    }

    /// The value under this key, if this is a table that has it.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        match &self.kind {
            Kind::Table(table) => table.get(key),
            _ => None,
        }
    }

    /// The value at the end of these keys.
    pub(crate) fn at(&self, keys: &[String]) -> Option<&Value> {
        keys.iter().try_fold(self, |value, key| value.get(key))
    }

    /// Puts a value at the end of these keys, making the tables on the way. What stood in the way of a table is replaced.
    pub(crate) fn put(&mut self, keys: &[&str], value: Value) {
        let Some((first, rest)) = keys.split_first() else {
            *self = value;
            return;
        };
        if !matches!(self.kind, Kind::Table(_)) {
            *self = Value::empty(value.source.clone());
        }
        if let Kind::Table(table) = &mut self.kind {
            let next = table.entry((*first).to_owned()).or_insert_with(|| Value::empty(value.source.clone()));
            next.put(rest, value);
        }
    }

    /// Lays `over` on top: tables are merged key by key, everything else (lists too) is replaced.
    pub(crate) fn merge(&mut self, over: Value) {
        match (&mut self.kind, over) {
            (Kind::Table(below), Value { kind: Kind::Table(above), .. }) => {
                for (key, value) in above {
                    match below.get_mut(&key) {
                        Some(old) => old.merge(value),
                        None => {
                            below.insert(key, value);
                        }
                    }
                }
            }
            (_, over) => *self = over,
        }
    }

    /// Calls `see` with the path and the value of every leaf (everything that is not a table).
    pub(crate) fn leaves<'v>(&'v self, path: &mut Vec<String>, see: &mut impl FnMut(&[String], &'v Value)) {
        match &self.kind {
            Kind::Table(table) => {
                for (key, value) in table {
                    path.push(key.clone());
                    value.leaves(path, see);
                    path.pop();
                }
            }
            _ => see(path, self),
        }
    }
}

/// A path as people write it: dots between keys, quotes around keys that are not plain words.
pub(crate) fn show_path(keys: &[String]) -> String {
    let plain = |key: &String| key.chars().all(|c| c.is_ascii_alphanumeric() || "_-[]".contains(c));
    keys.iter().map(|key| if plain(key) { key.clone() } else { format!("{key:?}") }).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn int(i: i128) -> Value {
        Value { kind: Kind::Int(i), source: Source::Embedded }
    }

    #[test]
    fn a_layer_replaces_leaves_and_keeps_their_neighbours() {
        let mut below = Value::empty(Source::Embedded);
        below.put(&["axon", "port"], int(1));
        below.put(&["axon", "workers"], int(2));
        let mut above = Value::empty(Source::Env("X".into()));
        above.put(&["axon", "port"], Value::text("9", Source::Env("X".into())));
        below.merge(above);
        let port = below.at(&["axon".into(), "port".into()]).unwrap();
        assert_eq!((&port.kind, &port.source), (&Kind::Text("9".into()), &Source::Env("X".into())));
        assert_eq!(below.at(&["axon".into(), "workers".into()]), Some(&int(2)));
    }

    #[test]
    fn names_with_spaces_are_quoted_in_paths() {
        assert_eq!(show_path(&["scoring".into(), "NVIDIA L4".into(), "base".into()]), "scoring.\"NVIDIA L4\".base");
    }
}
