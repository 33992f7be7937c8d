//! The command line that all nodes share, built from the table of flags.
//!
//! Values are taken as text here; whether they fit is judged with all other layers, so that a wrong flag is reported
//! together with a wrong file. Binaries put [`Cli`] into their own arguments with `#[command(flatten)]` and read them
//! with [`parse`].

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::flags::{Effect, FLAGS, Flag, FlagKind};
use super::leaf::parse_switch;
use crate::exit::Exit;

/// What was given on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cli {
    /// The file of `--config`.
    pub config: Option<PathBuf>,
    /// Each flag that was given, with its text.
    pub(crate) given: Vec<(&'static Flag, String)>,
    /// `--set`: key and text.
    pub(crate) assignments: Vec<(String, String)>,
}

impl Cli {
    /// The same, with a flag set as if it had been given (`name` without dashes). An unknown name changes nothing but
    /// is reported when the settings are loaded.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        match Flag::find(name) {
            Some(Flag { effect: Effect::Layer, name: "config", .. }) => self.config = Some(PathBuf::from(value)),
            Some(flag) if flag.effect != Effect::Layer => self.given.push((flag, value.to_owned())),
            _ => self.assignments.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// The same, with any key set as by `--set KEY=VALUE`.
    #[must_use]
    pub fn with_key(mut self, key: &str, value: &str) -> Self {
        self.assignments.push((key.to_owned(), value.to_owned()));
        self
    }
}

impl Cli {
    /// The same, with what stood behind a command as well; that comes later, so it counts where both say something.
    #[must_use]
    pub fn and(mut self, behind: Cli) -> Self {
        self.config = behind.config.or(self.config);
        self.given.extend(behind.given);
        self.assignments.extend(behind.assignments);
        self
    }

    /// Arguments that read as this: for a program that starts others with the same settings.
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args = Vec::new();
        if let Some(path) = &self.config {
            args.extend(["--config".into(), path.clone().into_os_string()]);
        }
        args.extend(self.given.iter().map(|(flag, text)| format!("--{}={text}", flag.name).into()));
        args.extend(self.assignments.iter().flat_map(|(key, text)| ["--set".into(), format!("{key}={text}").into()]));
        args
    }
}

/// Reads a program's arguments, the original's value styles included.
///
/// # Errors
/// clap's error: a wrong command line, or the text of `--help` and `--version`. [`exit_code`] says how to end.
pub fn parse<T: clap::Parser>(args: impl IntoIterator<Item = OsString>) -> Result<T, clap::Error> {
    T::try_parse_from(normalise(args))
}

/// How a program ends after [`parse`] failed: [`Exit::Ok`] for help and version, else [`Exit::Usage`] (64).
pub fn exit_code(error: &clap::Error) -> Exit {
    if error.use_stderr() { Exit::Usage } else { Exit::Ok }
}

/// Joins `--switch false` to `--switch=false`, so that a word that is no switch value stays an argument of its own.
fn normalise(args: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut out: Vec<OsString> = Vec::new();
    let mut open_switch = false;
    let mut done = false;
    for arg in args {
        let text = arg.to_str();
        if let (true, Some(value), Some(last)) = (open_switch, text, out.last_mut())
            && parse_switch(value).is_some()
        {
            last.push("=");
            last.push(value);
            open_switch = false;
            continue;
        }
        done |= text == Some("--");
        let name = text.and_then(|text| text.strip_prefix("--"));
        open_switch = !done && name.and_then(Flag::find).is_some_and(|flag| flag.kind == FlagKind::Switch);
        out.push(arg);
    }
    out
}

fn arg(flag: &'static Flag) -> Arg {
    let heading = match flag.name.split_once('.') {
        Some((section, _)) => section,
        None => "General",
    };
    let arg = Arg::new(flag.name).long(flag.name).help(flag.help).help_heading(heading);
    let arg = match flag.alias {
        Some(alias) => arg.visible_alias(alias),
        None => arg,
    };
    match flag.kind {
        FlagKind::Value => arg
            .value_name(if flag.name == "config" { "FILE" } else { "VALUE" })
            .allow_negative_numbers(true)
            .overrides_with(flag.name),
        FlagKind::List => arg.value_name("A,B,…").overrides_with(flag.name),
        FlagKind::Switch => arg
            .value_name("true|false")
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .overrides_with(flag.name),
        FlagKind::Assignment => arg.value_name("KEY=VALUE").action(ArgAction::Append),
    }
}

impl Args for Cli {
    fn augment_args(cmd: Command) -> Command {
        cmd.args(FLAGS.iter().map(arg))
    }
    fn augment_args_for_update(cmd: Command) -> Command {
        Self::augment_args(cmd)
    }
}

impl FromArgMatches for Cli {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut cli = Cli::default();
        cli.update_from_arg_matches(matches)?;
        Ok(cli)
    }
    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for flag in FLAGS {
            for text in matches.get_many::<String>(flag.name).into_iter().flatten() {
                match (flag.kind, flag.effect) {
                    (FlagKind::Assignment, _) => {
                        let (key, value) = text.split_once('=').ok_or_else(|| {
                            let wrong = format!("--{} {text:?}: expected KEY=VALUE\n", flag.name);
                            clap::Error::raw(clap::error::ErrorKind::ValueValidation, wrong)
                        })?;
                        self.assignments.push((key.trim().to_owned(), value.to_owned()));
                    }
                    (_, Effect::Layer) => self.config = Some(PathBuf::from(text)),
                    _ => self.given.push((flag, text.clone())),
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Program {
        #[command(flatten)]
        cli: Cli,
        rest: Vec<String>,
    }

    fn read(line: &str) -> Result<Program, clap::Error> {
        parse(std::iter::once("program").chain(line.split_whitespace()).map(OsString::from))
    }

    fn given(line: &str) -> Vec<(&'static str, String)> {
        read(line).unwrap().cli.given.into_iter().map(|(flag, text)| (flag.name, text)).collect()
    }

    #[test]
    fn a_switch_works_alone_with_a_word_and_with_an_equals_sign() {
        for (line, value) in [
            ("--auto_update", "true"),
            ("--auto-update", "true"),
            ("--auto_update false", "false"),
            ("--auto-update=false", "false"),
            ("--auto_update no", "no"),
            ("--auto_update false --auto_update", "true"),
        ] {
            assert_eq!(given(line), [("auto_update", value.to_owned())], "{line}");
        }
    }

    #[test]
    fn a_switch_does_not_swallow_the_command_behind_it() {
        let program = read("--logging.debug explain 5abc").unwrap();
        assert_eq!(program.rest, ["explain", "5abc"]);
        assert_eq!(program.cli.given[0].1, "true");
        assert_eq!(read("--strict -- false").unwrap().rest, ["false"]);
    }

    #[test]
    fn what_was_given_can_be_given_to_another_program() {
        let cli =
            read("--config my.yaml --axon.port -3 --auto_update --blacklist.hotkeys a,b --set x.y=1=2").unwrap().cli;
        let again: Program = parse(std::iter::once(OsString::from("program")).chain(cli.to_args())).unwrap();
        assert_eq!(again.cli, cli);
    }

    #[test]
    fn what_stands_behind_a_command_counts_after_what_stands_before() {
        let [before, behind] =
            ["--config a.yaml --axon.port 1 --set x.y=1", "--config b.yaml --axon.port 2 --set x.y=2"]
                .map(|line| read(line).unwrap().cli);
        let both = before.clone().and(behind.clone());
        assert_eq!(both.config, behind.config);
        assert_eq!(both.given.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(both.assignments.last(), behind.assignments.last());
        assert_eq!(before.clone().and(Cli::default()), before);
    }

    #[test]
    fn the_last_of_a_repeated_flag_counts() {
        assert_eq!(given("--axon.port 1 --axon.port=2"), [("axon.port", "2".to_owned())]);
    }

    #[test]
    fn a_wrong_command_line_is_a_usage_error_that_names_the_nearest_flag() {
        let wrong = read("--axon.prot 8091").unwrap_err();
        assert_eq!(exit_code(&wrong), Exit::Usage);
        assert!(wrong.to_string().contains("--axon.port"), "{wrong}");
        assert_eq!(exit_code(&read("--axon.port").unwrap_err()), Exit::Usage);
        assert_eq!(exit_code(&read("--set nothing").unwrap_err()), Exit::Usage);
        assert_eq!(exit_code(&read("--help").unwrap_err()), Exit::Ok);
    }
}
