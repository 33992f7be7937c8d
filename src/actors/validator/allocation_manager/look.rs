//! One look at a lease from both vantage points: what its miner says, and whether its SSH port answers us.

use std::io::ErrorKind;
use std::time::Duration;

use tokio::net::TcpStream;

use super::AllocationSetup;
use super::calls::status;
use crate::lease::banner::ssh_greets;
use crate::lease::health::{EngineView, Observation, ProbeView};
use crate::lease::{Endpoint, Lease, LeaseState};
use crate::scoring::LeaseReceipt;

/// Looks from both points at once. A container that was paused as we wished answers nobody, so its silence says nothing.
pub(super) async fn look(setup: &AllocationSetup, lease: &Lease, receipt: Option<LeaseReceipt>) -> Observation {
    let endpoint = lease.endpoint.filter(|_| setup.ssh_probe);
    let probing = async {
        match endpoint {
            Some(endpoint) => probe(endpoint, setup.call_deadline).await,
            None => ProbeView::NotApplicable,
        }
    };
    let (engine, probe) = tokio::join!(status(setup, lease, receipt), probing);
    let seen = Observation::of_renter(engine, probe, lease.state == LeaseState::Paused);
    match probe {
        ProbeView::Answered => setup.metrics.rentals().probe("answered"),
        ProbeView::NoAnswer if seen.engine != EngineView::Paused => setup.metrics.rentals().probe("no_answer"),
        ProbeView::NotSeen => setup.metrics.rentals().probe("not_seen"),
        ProbeView::NoAnswer | ProbeView::NotApplicable => {}
    }
    seen
}

/// Dials an SSH port and waits for the server's banner, all of it within the deadline.
async fn probe(at: Endpoint, deadline: Duration) -> ProbeView {
    let dial = async {
        let mut stream = match TcpStream::connect((at.host, at.ssh_port)).await {
            Ok(stream) => stream,
            Err(error) if is_our_own(error.kind()) || error.raw_os_error().is_some_and(is_exhaustion) => {
                return ProbeView::NotSeen;
            }
            Err(_) => return ProbeView::NoAnswer,
        };
        if ssh_greets(&mut stream).await { ProbeView::Answered } else { ProbeView::NoAnswer }
    };
    tokio::time::timeout(deadline, dial).await.unwrap_or(ProbeView::NoAnswer)
}

/// This machine has no way out, so what did not answer says nothing.
fn is_our_own(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NetworkUnreachable | ErrorKind::NetworkDown | ErrorKind::AddrNotAvailable)
}

/// This process or machine has no descriptors or memory left.
fn is_exhaustion(code: i32) -> bool {
    use rustix::io::Errno;
    [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].iter().any(|errno| errno.raw_os_error() == code)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    /// A server that says this to whoever connects, and hangs up if told to.
    async fn server(words: &'static [u8], hangs_up: bool) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                stream.write_all(words).await.unwrap();
                if !hangs_up {
                    kept.push(stream);
                }
            }
        });
        Endpoint { host: at.ip(), ssh_port: at.port() }
    }

    #[tokio::test]
    async fn a_port_answers_when_an_ssh_server_says_its_name_there() {
        assert_eq!(probe(server(b"SSH-2.0-OpenSSH_9.2\r\n", false).await, SOON).await, ProbeView::Answered);
        assert_eq!(probe(server(b"welcome\r\nSSH-2.0-x\r\n", true).await, SOON).await, ProbeView::Answered);
        assert_eq!(probe(server(b"HTTP/1.1 400 Bad Request\r\n\r\n", true).await, SOON).await, ProbeView::NoAnswer);
        assert_eq!(probe(server(b"SSH-1.5-old\n", true).await, SOON).await, ProbeView::NoAnswer);
        let silent = server(b"", false).await;
        assert_eq!(probe(silent, Duration::from_millis(50)).await, ProbeView::NoAnswer);
        let flood: &'static [u8] = &[b'x'; 8 * 1024];
        assert_eq!(probe(server(flood, false).await, SOON).await, ProbeView::NoAnswer);
    }

    #[tokio::test]
    async fn a_closed_port_does_not_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        drop(listener);
        let closed = Endpoint { host: at.ip(), ssh_port: at.port() };
        assert_eq!(probe(closed, SOON).await, ProbeView::NoAnswer);
    }

    #[test]
    fn what_this_machine_lacks_is_not_held_against_a_miner() {
        assert!(is_our_own(ErrorKind::NetworkUnreachable) && !is_our_own(ErrorKind::ConnectionRefused));
        assert!(is_exhaustion(rustix::io::Errno::MFILE.raw_os_error()));
        assert!(!is_exhaustion(rustix::io::Errno::CONNREFUSED.raw_os_error()));
    }
}
