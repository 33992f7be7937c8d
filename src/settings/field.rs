//! Tree → typed settings, collecting every problem instead of stopping at the first.
//!
//! [`section!`] declares a struct and how it is read: each field by its own type, each with an optional check. A
//! field that cannot be read takes the shipped default for the time being, so that the rest of the configuration is
//! judged too; a configuration with problems is never handed out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::problem::{Problem, nearest};
use super::value::{Kind, Source, Value, show_path};

/// Why a value does not fit its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) reason: String,
    pub(crate) nearest: Option<String>,
}

impl From<String> for Wrong {
    fn from(reason: String) -> Self {
        Wrong { reason, nearest: None }
    }
}

/// Where in the tree the reader is, and the source to name when nothing is there.
#[derive(Debug, Clone)]
pub(crate) struct At {
    pub(crate) keys: Vec<String>,
    pub(crate) source: Source,
}

impl At {
    /// The top of the tree.
    pub(crate) fn top() -> Self {
        At { keys: Vec::new(), source: Source::Embedded }
    }

    /// One key further down.
    pub(crate) fn key(&self, key: &str, value: Option<&Value>) -> At {
        let mut keys = self.keys.clone();
        keys.push(key.to_owned());
        At { keys, source: value.map_or_else(|| self.source.clone(), |value| value.source.clone()) }
    }
}

/// Reads settings and collects what is wrong.
pub(crate) struct Reader<'d> {
    /// The shipped configuration, for fields that cannot be read; `None` while reading it.
    pub(crate) defaults: Option<&'d Value>,
    /// What `~` stands for.
    pub(crate) home: Option<PathBuf>,
    pub(crate) problems: Vec<Problem>,
    /// Paths of the keys with a problem: checks across keys leave them out.
    pub(crate) bad: BTreeSet<Vec<String>>,
}

impl<'d> Reader<'d> {
    pub(crate) fn new(defaults: Option<&'d Value>, home: Option<PathBuf>) -> Self {
        Reader { defaults, home, problems: Vec::new(), bad: BTreeSet::new() }
    }

    /// Notes a problem with the value at `at`.
    pub(crate) fn wrong(&mut self, at: &At, wrong: impl Into<Wrong>) {
        self.bad.insert(at.keys.clone());
        self.report(at, wrong);
    }

    /// Notes a problem of a value that is right by itself.
    pub(crate) fn report(&mut self, at: &At, wrong: impl Into<Wrong>) {
        let Wrong { reason, nearest } = wrong.into();
        self.problems.push(Problem { source: at.source.clone(), key: show_path(&at.keys), reason, nearest });
    }

    /// The table at `at`, its unknown keys reported; `None` when there is no table, which is reported too.
    pub(crate) fn table<'v>(
        &mut self,
        value: Option<&'v Value>,
        at: &At,
        known: &[&str],
    ) -> Option<&'v BTreeMap<String, Value>> {
        let table = self.any_table(value, at)?;
        for (key, value) in table {
            if !known.contains(&key.as_str()) {
                let at = at.key(key, Some(value));
                let nearest = nearest(key, known.iter().copied())
                    .map(|name| {
                        show_path(&at.keys[..at.keys.len() - 1].iter().cloned().chain([name]).collect::<Vec<_>>())
                    })
                    .or_else(|| self.same_key_elsewhere(key));
                self.wrong(&at, Wrong { reason: "unknown key".to_owned(), nearest });
            }
        }
        Some(table)
    }

    /// The table at `at`, whatever its keys.
    fn any_table<'v>(&mut self, value: Option<&'v Value>, at: &At) -> Option<&'v BTreeMap<String, Value>> {
        match value.map(|value| &value.kind) {
            Some(Kind::Table(table)) => Some(table),
            other => {
                let found = other.map_or_else(|| "nothing".to_owned(), Kind::found);
                self.wrong(at, format!("expected a table of keys, found {found}"));
                None
            }
        }
    }

    /// The full path of a shipped key of this name in another section.
    fn same_key_elsewhere(&self, key: &str) -> Option<String> {
        let mut found = None;
        self.defaults?.leaves(&mut Vec::new(), &mut |keys, _| {
            if found.is_none() && keys.last().is_some_and(|last| last == key) {
                found = Some(show_path(keys));
            }
        });
        found
    }

    /// Applies a field's check.
    pub(crate) fn check<T>(&mut self, read: Option<T>, at: &At, check: impl Fn(&T) -> Option<String>) -> Option<T> {
        let value = read?;
        match check(&value) {
            None => Some(value),
            Some(reason) => {
                self.wrong(at, reason);
                None
            }
        }
    }

    /// The shipped default of a field that could not be read.
    pub(crate) fn fallback<T: Field>(&self, at: &At) -> Option<T> {
        let default = self.defaults?.at(&at.keys)?;
        T::read(Some(default), at, &mut Reader::new(None, self.home.clone()))
    }
}

/// Something that can be read from the tree: a leaf, a list, a map or a section.
pub(crate) trait Field: Sized {
    /// Reads the value, or reports why not.
    fn read(value: Option<&Value>, at: &At, reader: &mut Reader<'_>) -> Option<Self>;
    /// Adds each leaf as path and text.
    fn list(&self, keys: &mut Vec<String>, out: &mut Vec<(String, String)>);
}

/// A single value.
pub(crate) trait Leaf: Sized {
    /// Reads the value. `home` is what `~` stands for.
    fn parse(kind: &Kind, home: Option<&PathBuf>) -> Result<Self, Wrong>;
    /// The value as text.
    fn text(&self) -> String;
}

impl<T: Leaf> Field for T {
    fn read(value: Option<&Value>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let read = match value.map(|value| &value.kind) {
            None => Err(Wrong::from("the key is missing".to_owned())),
            Some(Kind::Null) => Err(Wrong::from("a value is needed here".to_owned())),
            Some(kind) => T::parse(kind, reader.home.as_ref()),
        };
        read.map_err(|wrong| reader.wrong(at, wrong)).ok()
    }
    fn list(&self, keys: &mut Vec<String>, out: &mut Vec<(String, String)>) {
        out.push((show_path(keys), self.text()));
    }
}

/// How a value that was left out, and a list without items, are shown.
pub(super) const NONE: &str = "none";

/// A value that may be left out: null, an empty text or no key at all.
impl<T: Field> Field for Option<T> {
    fn read(value: Option<&Value>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        match value.map(|value| &value.kind) {
            None | Some(Kind::Null) => Some(None),
            Some(Kind::Text(text)) if text.trim().is_empty() => Some(None),
            Some(_) => T::read(value, at, reader).map(Some),
        }
    }
    fn list(&self, keys: &mut Vec<String>, out: &mut Vec<(String, String)>) {
        match self {
            Some(value) => value.list(keys, out),
            None => out.push((show_path(keys), NONE.to_owned())),
        }
    }
}

/// A list, or its items with commas between them, as flags and environment give it.
impl<T: Leaf> Field for Vec<T> {
    fn read(value: Option<&Value>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let split;
        let items: &[Value] = match value.map(|value| &value.kind) {
            None | Some(Kind::Null) => &[],
            Some(Kind::List(items)) => items,
            Some(Kind::Text(text)) => {
                split = text.split(',').map(str::trim).filter(|item| !item.is_empty());
                let split: Vec<Value> = split.map(|item| Value::text(item, at.source.clone())).collect();
                return read_items(&split, at, reader);
            }
            Some(other) => {
                reader.wrong(at, format!("expected a list, found {}", other.found()));
                return None;
            }
        };
        read_items(items, at, reader)
    }
    fn list(&self, keys: &mut Vec<String>, out: &mut Vec<(String, String)>) {
        let items: Vec<String> = self.iter().map(Leaf::text).collect();
        out.push((show_path(keys), if items.is_empty() { NONE.to_owned() } else { items.join(",") }));
    }
}

fn read_items<T: Leaf>(items: &[Value], at: &At, reader: &mut Reader<'_>) -> Option<Vec<T>> {
    let read = items.iter().enumerate().map(|(index, item)| {
        let mut at = at.key("", Some(item));
        at.keys.pop();
        if let Some(last) = at.keys.last_mut() {
            *last = format!("{last}[{index}]");
        }
        T::read(Some(item), &at, reader)
    });
    // Every item is read before the first failure counts.
    let read: Vec<Option<T>> = read.collect();
    read.into_iter().collect()
}

/// Rows by name. A row set to null is taken out.
impl<T: Field> Field for BTreeMap<String, T> {
    fn read(value: Option<&Value>, at: &At, reader: &mut Reader<'_>) -> Option<Self> {
        let table = reader.any_table(value, at)?;
        let mut rows = BTreeMap::new();
        for (name, row) in table.iter().filter(|(_, row)| row.kind != Kind::Null) {
            if let Some(read) = T::read(Some(row), &at.key(name, Some(row)), reader) {
                rows.insert(name.clone(), read);
            }
        }
        Some(rows)
    }
    fn list(&self, keys: &mut Vec<String>, out: &mut Vec<(String, String)>) {
        for (name, row) in self {
            keys.push(name.clone());
            row.list(keys, out);
            keys.pop();
        }
    }
}

/// Declares a section: a struct whose fields are read, checked and listed one by one. `secret` leaves `Debug` to be written by
/// hand.
macro_rules! section {
    ($(#[$meta:meta])* pub struct $name:ident $body:tt) => {
        section! { secret #[derive(Debug)] $(#[$meta])* pub struct $name $body }
    };
    (secret $(#[$meta:meta])* pub struct $name:ident {
        $($(#[$fmeta:meta])* pub $field:ident : $ty:ty $([$check:expr])?,)*
    }) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty,)* }

        impl $crate::settings::field::Field for $name {
            fn read(
                value: Option<&$crate::settings::value::Value>, at: &$crate::settings::field::At,
                reader: &mut $crate::settings::field::Reader<'_>,
            ) -> Option<Self> {
                let Some(table) = reader.table(value, at, &[$(stringify!($field)),*]) else {
                    return reader.fallback(at);
                };
                $(let $field: Option<$ty> = {
                    let value = table.get(stringify!($field));
                    let at = at.key(stringify!($field), value);
                    let read = <$ty as $crate::settings::field::Field>::read(value, &at, reader);
                    $(let read = reader.check(read, &at, $check);)?
                    read.or_else(|| reader.fallback(&at))
                };)*
                Some($name { $($field: $field?,)* })
            }
            fn list(&self, keys: &mut Vec<String>, out: &mut Vec<(String, String)>) {
                $(
                    keys.push(stringify!($field).to_owned());
                    self.$field.list(keys, out);
                    keys.pop();
                )*
            }
        }
    };
}
pub(crate) use section;
