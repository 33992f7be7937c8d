//! What the binaries share between `main` and a running node: settings, logs, runtime, signals.

use std::ffi::OsString;
use std::io::IsTerminal as _;
use std::sync::Arc;

use crate::exit::Exit;
use crate::settings::{self, Cli, Level, LogFormat, Loaded, Role, Settings};
use crate::telemetry::logging::{self, Format, LogFile, LogGuard, LogOptions};

/// Reads the command line of a program whose arguments are `T`; ends the process with help, version or what was wrong.
pub fn arguments<T: clap::Parser>(args: impl IntoIterator<Item = OsString>) -> Result<T, Exit> {
    settings::parse(args).map_err(|error| {
        // Where not even stderr can be written to, the exit code still tells.
        let _ = error.print();
        settings::exit_code(&error)
    })
}

/// Loads the settings of a role; on failure prints everything that is wrong.
#[expect(clippy::print_stderr, reason = "logs are not set up before the settings are known")]
pub fn load(role: Role, cli: &Cli) -> Result<Loaded, Exit> {
    settings::load(role, cli, settings::process_env()).map_err(|problems| {
        eprintln!("{problems}");
        Exit::Config
    })
}

/// Sets up the logs as the settings say.
#[expect(clippy::print_stderr, reason = "without logs there is nowhere else to say so")]
pub fn logs(settings: &Settings, role: &str) -> Result<LogGuard, Exit> {
    let options = LogOptions {
        level: match settings.logging.level() {
            Level::Info => logging::Level::Info,
            Level::Debug => logging::Level::Debug,
            Level::Trace => logging::Level::Trace,
        },
        filter: None,
        format: match settings.logging.format {
            LogFormat::Text => Format::Text,
            LogFormat::Json => Format::Json,
        },
        file: settings.logging.record_log.then(|| LogFile::in_dir(settings.log_dir(role))),
        colour: std::io::stderr().is_terminal(),
    };
    logging::init(&options).map_err(|error| {
        eprintln!("{}", crate::telemetry::error_chain(&error));
        Exit::CannotCreate
    })
}

/// Tells the operator what was noticed while the settings were read.
pub fn warn(warnings: &[String]) {
    for warning in warnings {
        tracing::warn!("{warning}");
    }
}

/// Runs a program's asynchronous part: actix for the actors' arbiters, one shared multi-thread runtime beneath them.
#[expect(clippy::print_stderr, reason = "without a runtime there are no logs")]
pub fn run<F: Future<Output = Exit>>(main: impl FnOnce(Arc<tokio::runtime::Runtime>) -> F) -> Exit {
    let threads = std::thread::available_parallelism().map_or(2, std::num::NonZero::get).clamp(2, 8);
    let built = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .thread_name("compute-worker")
        .enable_all()
        .build();
    let runtime = match built {
        Ok(runtime) => Arc::new(runtime),
        Err(error) => {
            eprintln!("cannot start the runtime's threads: {error}");
            return Exit::Unavailable;
        }
    };
    let system = actix::System::new();
    let exit = system.block_on(main(runtime.clone()));
    // Tasks of libraries may still sleep; the process is about to end, they are not waited for.
    if let Some(runtime) = Arc::into_inner(runtime) {
        runtime.shutdown_background();
    }
    exit
}

/// Resolves at the first SIGINT or SIGTERM. From then on a second one ends the process at once.
pub async fn stop_signal() {
    let first = wait_for_signal().await;
    tracing::info!(signal = first, "stopping; a second signal ends the program at once");
    actix_rt::spawn(async {
        wait_for_signal().await;
        std::process::exit(Exit::Interrupted.code());
    });
}

async fn wait_for_signal() -> &'static str {
    use tokio::signal::unix::{SignalKind, signal};
    let (interrupt, terminate) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    match (interrupt, terminate) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! {
                _ = interrupt.recv() => "SIGINT",
                _ = terminate.recv() => "SIGTERM",
            }
        }
        _ => {
            tracing::error!("signals cannot be heard; end this program with SIGKILL");
            std::future::pending().await
        }
    }
}
