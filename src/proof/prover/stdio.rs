//! A whole prover process: frames on stdin and stdout, until the input ends.

use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::unix::pipe;

use super::{Backend, ServeError, serve};
use crate::exit::Exit;
use crate::proof::frames::FrameError;

/// Serves frames on this process's stdin and stdout until the input ends; what went wrong goes to stderr.
///
/// `backend` computes. The work's own threads are the backend's; this needs one for the pipe. [`Exit::Ok`] in order, [`Exit::Data`] if the
/// input is no frames, [`Exit::Unavailable`] without a runtime.
pub fn serve_stdio(backend: Backend) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().thread_stack_size(512 * 1024).enable_io().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return failed(Exit::Unavailable, &error),
    };
    let served = runtime.block_on(async {
        let input: Box<dyn AsyncRead + Send + Unpin> = match pipe::Receiver::from_owned_fd(own(std::io::stdin())?) {
            Ok(pipe) => Box::new(pipe),
            Err(_) => Box::new(tokio::fs::File::from_std(own(std::io::stdin())?.into())),
        };
        let output: Box<dyn AsyncWrite + Send + Unpin> = match pipe::Sender::from_owned_fd(own(std::io::stdout())?) {
            Ok(pipe) => Box::new(pipe),
            Err(_) => Box::new(tokio::fs::File::from_std(own(std::io::stdout())?.into())),
        };
        serve(input, output, backend).await
    });
    // A read of a file or terminal that is under way cannot be cancelled; nothing is lost by leaving it.
    runtime.shutdown_background();
    match served {
        Ok(()) => Exit::Ok,
        Err(error @ (ServeError::Frame(_) | ServeError::Unexpected(..))) => failed(Exit::Data, &error),
    }
}

fn failed(exit: Exit, error: &(dyn std::error::Error + 'static)) -> Exit {
    let _ = writeln!(std::io::stderr(), "compute-prover: {}", crate::error::error_chain(error));
    exit
}

/// A standard stream without the buffer and the lock of the standard library. A pipe then needs no thread of its own,
/// which a tight memory limit might refuse; files and terminals do.
fn own(stream: impl AsFd) -> Result<OwnedFd, FrameError> {
    stream.as_fd().try_clone_to_owned().map_err(FrameError::Io)
}
