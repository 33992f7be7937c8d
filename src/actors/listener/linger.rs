//! How a connection ends that the server has let go of while its peer is still there.
//!
//! A socket that is closed while its peer sends is reset, and the peer may lose the reply that it has not read yet: why its
//! body was refused. So a connection is closed in one direction first, and what still arrives is thrown away: for
//! [`LINGER`], and no more than [`MOST`] bytes. Whoever sends more waits for the rest of that time.

use std::future::pending;
use std::io::ErrorKind;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, copy, sink};
use tokio::net::TcpStream;

/// How long a peer has to read its reply.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that are thrown away meanwhile.
const MOST: u64 = 256 * 1024;

/// Says that no more comes over this socket; its other direction, if the peer has not closed that.
///
/// # Panics
/// Outside of a tokio runtime.
pub(super) fn half_close(socket: &OwnedFd) -> Option<TcpStream> {
    let stream = std::net::TcpStream::from(socket.try_clone().ok()?);
    let here = match stream.peek(&mut [0]) {
        Ok(bytes) => bytes > 0,
        Err(error) => error.kind() == ErrorKind::WouldBlock,
    };
    if !here {
        return None;
    }
    stream.shutdown(Shutdown::Write).ok()?;
    TcpStream::from_std(stream).ok()
}

/// Waits until the peer has closed its direction too, within the limits.
pub(super) async fn linger(stream: TcpStream) {
    let closed = async {
        let mut rest = stream.take(MOST);
        if copy(&mut rest, &mut sink()).await.is_ok_and(|bytes| bytes == MOST) {
            pending::<()>().await;
        }
    };
    // At the end of the time it is closed, read or not.
    let _ = tokio::time::timeout(LINGER, closed).await;
}
