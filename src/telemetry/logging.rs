//! Log output: levels, text or JSON, standard error and a bounded file.
//!
//! Lines go to standard error. With a file they also go to `node.log` in its directory, readable by the owner only,
//! written by a thread of its own: a slow disk makes lines drop (and says so), never an actor wait.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{Layer, Registry, reload};

use super::file::{FileLog, FileWriter};

/// How much is logged, as the original's flags have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Level {
    /// What an operator wants to know.
    #[default]
    Info,
    /// `--logging.debug`: also each decision of this program.
    Debug,
    /// `--logging.trace`: also each message, and the libraries' decisions.
    Trace,
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A log file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFile {
    /// Where the file and the older ones put aside are; made with mode 0700 if it is not there.
    pub dir: PathBuf,
    /// The file's name; those put aside are `NAME.1` (the newest), `NAME.2`, …
    pub name: String,
    /// A file that would grow beyond this many bytes is put aside.
    pub max_bytes: u64,
    /// How many put-aside files are kept.
    pub keep: usize,
}

impl LogFile {
    /// `node.log` in `dir`. 16 MiB a file, 4 kept beside the current one: 80 MiB at most.
    pub fn in_dir(dir: impl Into<PathBuf>) -> Self {
        LogFile { dir: dir.into(), name: "node.log".to_owned(), max_bytes: 16 << 20, keep: 4 }
    }

    /// The file of this path, bounded alike; `None` if the path names no file.
    pub fn at(path: &Path) -> Option<Self> {
        let (dir, name) = (path.parent()?, path.file_name()?.to_str()?);
        Some(LogFile { name: name.to_owned(), ..LogFile::in_dir(dir) })
    }
}

/// What to log, and where.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// How much.
    pub level: Level,
    /// Directives (`info,compute_subnet::wire=trace`) that replace the level's.
    pub filter: Option<String>,
    /// How a line looks.
    pub format: Format,
    /// A file beside standard error (`--logging.record_log`, `--logging.logging_dir`).
    pub file: Option<LogFile>,
    /// Colours on standard error; set it where that is a terminal.
    pub colour: bool,
    /// Nothing on standard error: for a program whose terminal shows something else. The file still gets everything.
    pub quiet: bool,
}

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The filter's text is wrong.
    #[error("log filter {filter:?} cannot be used, expected directives such as info,compute_subnet::wire=debug")]
    Filter {
        /// The filter.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The file cannot be opened.
    #[error("log file in {dir} cannot be opened")]
    File {
        /// The directory.
        dir: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Logging was set up before.
    #[error("logging is already set up in this process")]
    Twice,
}

/// Keeps the log file's thread; dropping it writes what is queued and closes the file.
#[derive(Debug)]
#[must_use = "lines that are queued for the log file are lost when the process ends without dropping this"]
pub struct LogGuard {
    file: Option<FileLog>,
    control: LogControl,
}

impl LogGuard {
    /// Lines that the log file's queue could not take so far.
    pub fn dropped_lines(&self) -> u64 {
        self.file.as_ref().map_or(0, FileLog::dropped)
    }
    /// Changes how much is logged from now on.
    pub fn control(&self) -> LogControl {
        self.control.clone()
    }
}

type SetLevel = Arc<dyn Fn(Level) -> Result<(), String> + Send + Sync>;

/// Changes how much a program logs while it runs.
#[derive(Clone)]
pub struct LogControl(SetLevel);

impl LogControl {
    /// Logs at this level from now on. Where directives were given in place of a level, they stay.
    ///
    /// # Errors
    /// If the program's logging is gone.
    pub fn set(&self, level: Level) -> Result<(), String> {
        (self.0)(level)
    }
}

impl std::fmt::Debug for LogControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LogControl")
    }
}

/// The directives of a level: this program's own targets at the level, libraries one step quieter.
fn directives(level: Level) -> String {
    let (own, others) = match level {
        Level::Info => ("info", "warn"),
        Level::Debug => ("debug", "info"),
        Level::Trace => ("trace", "debug"),
    };
    let targets =
        ["subnet", "miner", "validator", "register", "prover", "devnet"].map(|name| format!("compute_{name}={own}"));
    format!("{others},{}", targets.join(","))
}

fn filter(options: &LogOptions) -> Result<EnvFilter, LogError> {
    let text = options.filter.clone().unwrap_or_else(|| directives(options.level));
    EnvFilter::builder().parse(&text).map_err(|source| LogError::Filter { filter: text, source })
}

type Output = Box<dyn Layer<Registry> + Send + Sync>;

fn layer<W>(format: Format, colour: bool, writer: W) -> Output
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let base = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(colour).with_target(true);
    match format {
        Format::Text => base.boxed(),
        Format::Json => base.json().flatten_event(true).with_current_span(true).with_span_list(false).boxed(),
    }
}

/// Builds the subscriber without making it the process's: `main` wants [`init`], tests want this.
///
/// # Errors
/// [`LogError::Filter`], [`LogError::File`].
pub fn subscriber<W>(
    options: &LogOptions,
    writer: W,
) -> Result<(impl tracing::Subscriber + Send + Sync + 'static, LogGuard), LogError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(options)?);
    let fixed = options.filter.is_some();
    let control = LogControl(Arc::new(move |level| {
        if fixed {
            return Ok(());
        }
        let next = EnvFilter::builder().parse(directives(level)).map_err(|e| e.to_string())?;
        handle.reload(next).map_err(|e| e.to_string())
    }));
    let mut outputs = vec![layer(options.format, options.colour, writer)];
    let file = match &options.file {
        None => None,
        Some(file) => {
            let log = FileLog::open(file).map_err(|source| LogError::File { dir: file.dir.clone(), source })?;
            let writer: Arc<FileWriter> = log.writer();
            outputs.push(layer(options.format, false, move || FileWriter::handle(&writer)));
            Some(log)
        }
    };
    Ok((tracing_subscriber::registry().with(outputs).with(filter), LogGuard { file, control }))
}

/// Sets up logging for the process: the first thing a `main` does after its flags are read.
///
/// # Errors
/// [`LogError`]; nothing is logged anywhere then, so print it.
pub fn init(options: &LogOptions) -> Result<LogGuard, LogError> {
    if options.quiet {
        let (subscriber, guard) = subscriber(options, std::io::sink)?;
        tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
        return Ok(guard);
    }
    let (subscriber, guard) = subscriber(options, std::io::stderr)?;
    tracing::subscriber::set_global_default(subscriber).map_err(|_| LogError::Twice)?;
    Ok(guard)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);
    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    fn logged(options: &LogOptions, act: impl FnOnce()) -> String {
        let captured = Captured::default();
        let out = captured.clone();
        let (subscriber, guard) = subscriber(options, move || out.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, act);
        drop(guard);
        let bytes = captured.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }
    fn say_all() {
        tracing::info!(uid = 3, "own info");
        tracing::debug!("own debug");
        tracing::trace!("own trace");
        tracing::info!(target: "hyper::client", "library info");
        tracing::debug!(target: "hyper::client", "library debug");
    }

    #[test]
    fn each_level_shows_its_own_lines_and_keeps_libraries_a_step_quieter() {
        let shown = |level| {
            let text = logged(&LogOptions { level, ..LogOptions::default() }, say_all);
            ["own info", "own debug", "own trace", "library info", "library debug"].map(|line| text.contains(line))
        };
        assert_eq!(shown(Level::Info), [true, false, false, false, false]);
        assert_eq!(shown(Level::Debug), [true, true, false, true, false]);
        assert_eq!(shown(Level::Trace), [true, true, true, true, true]);
    }

    #[test]
    fn a_filter_replaces_the_level() {
        let options = LogOptions { filter: Some("off,hyper=debug".into()), ..LogOptions::default() };
        let text = logged(&options, say_all);
        assert!(text.contains("library debug") && !text.contains("own info"), "{text}");
    }

    #[test]
    fn a_wrong_filter_is_named() {
        let options = LogOptions { filter: Some("compute_subnet=loud".into()), ..LogOptions::default() };
        let error = subscriber(&options, std::io::sink).err().unwrap();
        assert!(error.to_string().starts_with("log filter \"compute_subnet=loud\" cannot be used"), "{error}");
    }

    #[test]
    fn json_lines_hold_the_fields() {
        let text = logged(&LogOptions { format: Format::Json, ..LogOptions::default() }, say_all);
        let line: serde_json::Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        assert_eq!((&line["uid"], &line["message"]), (&3.into(), &"own info".into()));
    }

    #[test]
    fn the_file_has_every_line_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let file = LogFile::in_dir(dir.path().join("logs"));
        let options = LogOptions { file: Some(file.clone()), ..LogOptions::default() };
        logged(&options, || (0..100).for_each(|i| tracing::info!("line {i}.")));
        let path = file.dir.join("node.log");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!((0..100).all(|i| text.contains(&format!("line {i}."))));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(&file.dir).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
