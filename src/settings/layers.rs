//! The layers above the shipped configuration: Bittensor's own variables, a file, our variables, the command line.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use super::cli::Cli;
use super::flags::Effect;
use super::leaf::parse_switch;
use super::problem::Problem;
use super::value::{Kind, Source, Value};
use super::{ENV_PREFIX, yaml};

/// Tables whose rows only a file can set: their names do not fit into variables and flags.
const TABLES: [&str; 2] = ["scoring.gpus", "devnet.gpu_scores"];

fn problem(source: Source, key: &str, reason: String) -> Problem {
    Problem { source, key: key.to_owned(), reason, nearest: None }
}

/// Lays the file on top.
pub(crate) fn file(path: &Path, tree: &mut Value, problems: &mut Vec<Problem>) {
    let source = Source::File { path: path.to_owned(), line: None };
    match read(path) {
        Ok(text) => {
            let (mut value, mut wrong) = yaml::parse(&text, Some(path));
            drop_empty_tables(&mut value, tree, SECTION_DEPTH);
            tree.merge(value);
            problems.append(&mut wrong);
        }
        Err(reason) => problems.push(problem(source, "", reason)),
    }
}

/// How deep a heading without keys means "nothing to change"; below, in the rows of tables, null takes a row out.
const SECTION_DEPTH: usize = 2;

/// Takes out headings whose keys are all commented out: YAML reads them as null.
fn drop_empty_tables(over: &mut Value, below: &Value, depth: usize) {
    let Kind::Table(table) = &mut over.kind else { return };
    table.retain(|key, value| match below.get(key) {
        Some(Value { kind: Kind::Table(_), .. }) if value.kind == Kind::Null => false,
        Some(below) if depth > 1 => {
            drop_empty_tables(value, below, depth - 1);
            true
        }
        _ => true,
    });
}

fn read(path: &Path) -> Result<String, String> {
    let cannot = |wrong: std::io::Error| format!("cannot be read: {wrong}");
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(yaml::MAX_BYTES + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > yaml::MAX_BYTES {
        return Err(format!("longer than {} bytes; this is not a configuration", yaml::MAX_BYTES));
    }
    String::from_utf8(bytes).map_err(|_| "not UTF-8 text".to_owned())
}

/// The variables by which Bittensor's own tools name a wallet.
const WALLET_VARIABLES: [(&str, &str); 3] =
    [("BT_WALLET_NAME", "wallet.name"), ("BT_WALLET_HOTKEY", "wallet.hotkey"), ("BT_WALLET_PATH", "wallet.path")];

/// Lays the variables of Bittensor's own tools on top of the shipped file, below everything that is meant for us.
pub(crate) fn wallet_variables(env: &[(String, String)], tree: &mut Value, problems: &mut Vec<Problem>) {
    for (name, key) in WALLET_VARIABLES {
        let given = env.iter().find(|(variable, value)| variable == name && !value.trim().is_empty());
        if let Some((_, value)) = given {
            put(key, value, Source::Env(name.to_owned()), tree, problems);
        }
    }
}

/// Lays `COMPUTE__SECTION__KEY` variables on top, in the order of their names.
pub(crate) fn environment(env: &[(String, String)], tree: &mut Value, problems: &mut Vec<Problem>) {
    let mut ours: Vec<_> = env.iter().filter(|(name, _)| name.starts_with(ENV_PREFIX)).collect();
    ours.sort();
    for (name, value) in ours {
        let key = name[ENV_PREFIX.len()..].to_ascii_lowercase().replace("__", ".");
        put(&key, value, Source::Env(name.clone()), tree, problems);
    }
}

/// Lays flags on top; `--set` last.
pub(crate) fn flags(cli: &Cli, tree: &mut Value, problems: &mut Vec<Problem>, warnings: &mut Vec<String>) {
    for (flag, text) in &cli.given {
        let source = Source::Flag(format!("--{}", flag.name));
        match flag.effect {
            Effect::Key(key) => put(key, text, source, tree, problems),
            Effect::Choice { key, yes, no } => match parse_switch(text) {
                Some(on) => put(key, if on { yes } else { no }, source, tree, problems),
                None => problems.push(problem(source, key, format!("expected true or false, found {text:?}"))),
            },
            Effect::NoEffect(why) => warnings.push(format!("flag --{}: accepted, no effect, because {why}", flag.name)),
            Effect::Layer => {}
        }
    }
    for (key, text) in &cli.assignments {
        put(key, text, Source::Flag(format!("--set {key}")), tree, problems);
    }
}

fn put(key: &str, text: &str, source: Source, tree: &mut Value, problems: &mut Vec<Problem>) {
    let keys: Vec<&str> = key.split('.').collect();
    if keys.iter().any(|key| key.is_empty()) {
        return problems.push(problem(source, key, "not a key: write SECTION and KEY".to_owned()));
    }
    if let Some(table) = TABLES.iter().find(|table| key.starts_with(&format!("{table}."))) {
        return problems.push(problem(source, key, format!("rows of {table} can only be set in a file (--config)")));
    }
    tree.put(&keys, Value::text(text, source));
}
