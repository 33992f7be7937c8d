//! HTTP by hand: from any loopback address, in any shape, with the time each exchange may take.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use crate::wait::LONG;

/// Where honest callers and most attackers are.
pub(crate) const HOME: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Most of a reply that is read.
const MAX_REPLY: u64 = 1 << 20;

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// 0 where the connection ended without an answer.
    pub(crate) status: u16,
    pub(crate) text: String,
    /// Bytes of the request that the other side took.
    pub(crate) taken: u64,
}

impl Reply {
    fn parse(bytes: &[u8], taken: u64) -> Self {
        let text = String::from_utf8_lossy(bytes).into_owned();
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        Reply { status, text, taken }
    }

    /// The body.
    pub(crate) fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }
}

pub(crate) async fn connect(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    match timeout(LONG, socket.connect(to)).await {
        Ok(connected) => connected,
        Err(_) => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

/// What is sent, piece by piece.
pub(crate) trait Pieces {
    /// The next piece and how long to wait before it; `None` at the end.
    fn next(&mut self) -> Option<(Duration, Vec<u8>)>;
}

/// All at once.
pub(crate) struct Whole(pub(crate) Option<Vec<u8>>);
impl Pieces for Whole {
    fn next(&mut self) -> Option<(Duration, Vec<u8>)> {
        Some((Duration::ZERO, self.0.take()?))
    }
}

/// A beginning, then the same piece again and again.
pub(crate) struct Repeated {
    pub(crate) first: Option<Vec<u8>>,
    pub(crate) piece: Vec<u8>,
    pub(crate) times: u64,
    pub(crate) every: Duration,
}
impl Pieces for Repeated {
    fn next(&mut self) -> Option<(Duration, Vec<u8>)> {
        if let Some(first) = self.first.take() {
            return Some((Duration::ZERO, first));
        }
        self.times = self.times.checked_sub(1)?;
        Some((self.every, self.piece.clone()))
    }
}

/// Whether a whole reply with a stated length is there.
fn complete(reply: &[u8]) -> bool {
    let text = String::from_utf8_lossy(reply);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    length.is_some_and(|length: usize| body.len() >= length)
}

/// Sends while the other side takes it, and reads its answer.
pub(crate) async fn exchange(from: Ipv4Addr, to: SocketAddr, mut pieces: impl Pieces) -> Reply {
    let talk = async {
        let Ok(stream) = connect(from, to).await else { return Reply::parse(b"", 0) };
        let (read, mut write) = stream.into_split();
        let sent = async {
            let mut taken = 0;
            while let Some((wait, piece)) = pieces.next() {
                tokio::time::sleep(wait).await;
                if write.write_all(&piece).await.is_err() {
                    break;
                }
                taken += piece.len() as u64;
            }
            (taken, write)
        };
        let heard = async {
            let mut reply = Vec::new();
            let mut read = read.take(MAX_REPLY);
            // A connection that is reset keeps what was read before.
            while !complete(&reply) && read.read_buf(&mut reply).await.is_ok_and(|n| n > 0) {}
            reply
        };
        // The sending half stays open until the answer is there.
        let ((taken, _write), reply) = tokio::join!(sent, heard);
        Reply::parse(&reply, taken)
    };
    timeout(LONG, talk).await.unwrap_or_else(|_| panic!("{to} neither answers nor closes within {LONG:?}"))
}
