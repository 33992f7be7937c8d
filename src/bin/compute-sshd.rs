//! The SSH server of rented containers. See `compute_subnet::sshd`.

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use compute_subnet::exit::Exit;
use compute_subnet::sshd::launch;
use compute_subnet::sshd::server::{self, Failure};

/// Lets renters log in to a container with SSH, whatever image it is made of.
///
/// Who may log in is said by the files of a directory: host_key, user_key, terminal_key, password_hash. They are read anew at
/// each attempt. Exit codes: 0 ended by SIGTERM or SIGINT, 64 wrong command line, 65 the host key cannot be used, 69 the port
/// cannot be had.
#[derive(Parser)]
#[command(name = "compute-sshd", version)]
struct Cli {
    /// The directory with the files.
    #[arg(long, default_value = "/.compute", value_name = "DIR")]
    dir: PathBuf,
    /// Where to listen.
    #[arg(long, default_value = "0.0.0.0:22", value_name = "ADDRESS:PORT")]
    listen: SocketAddr,
    #[command(subcommand)]
    internal: Option<Internal>,
}

#[derive(Subcommand)]
enum Internal {
    /// Becomes a session's program; the server starts it.
    #[command(hide = true)]
    Launch {
        /// The program's place among those that are ended when memory runs out; empty to leave it.
        #[arg(long)]
        oom: String,
        /// The program.
        program: OsString,
        /// What it is called.
        name: OsString,
        /// Its arguments.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Ok }.into();
        }
    };
    if let Some(Internal::Launch { oom, program, name, arguments }) = cli.internal {
        let home = std::env::var_os("HOME").unwrap_or_else(|| "/".into());
        return launch::become_program(&oom, Path::new(&home), &program, &name, &arguments);
    }
    // Two threads serve all connections of a container; files and hashes have threads of their own when they need them.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(32).enable_all().build();
    let served = match runtime {
        Ok(runtime) => {
            let served = runtime.block_on(server::serve(cli.dir, cli.listen));
            // Not waited for: a thread may be held by a file that does not answer.
            runtime.shutdown_background();
            served
        }
        Err(error) => Err(Failure::Signals(error)),
    };
    match served {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "compute-sshd: {failure}");
            match failure {
                Failure::Files(_) => Exit::Data,
                Failure::Listen(..) | Failure::Signals(_) => Exit::Unavailable,
            }
            .into()
        }
    }
}
