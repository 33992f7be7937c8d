//! One look at a lease from both vantage points: what its miner says, and whether its SSH port answers us.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::{TcpStream, UdpSocket};

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
        let to = SocketAddr::new(at.host, at.ssh_port);
        let mut stream = match TcpStream::connect(to).await {
            Ok(stream) => stream,
            Err(error) if is_our_own(&error, has_way(to).await) => return ProbeView::NotSeen,
            Err(_) => return ProbeView::NoAnswer,
        };
        if ssh_greets(&mut stream).await { ProbeView::Answered } else { ProbeView::NoAnswer }
    };
    tokio::time::timeout(deadline, dial).await.unwrap_or(ProbeView::NoAnswer)
}

/// Whether this machine knows a way to this address. To connect a datagram socket is to look the way up: nothing is sent, so
/// nothing that comes back from afar is in the answer.
async fn has_way(to: SocketAddr) -> bool {
    let from = if to.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0; 16], 0)) };
    match UdpSocket::bind(from).await {
        Ok(socket) => socket.connect(to).await.is_ok(),
        Err(_) => false,
    }
}

/// What kept us is on this machine, so that nothing answered says nothing. `has_way`: [`has_way`] to where it was.
///
/// "Network unreachable" is what connecting says where there is no route from here, and where a router far away sends word
/// of it: whoever runs the other side can send that, and must not be seen as little as it likes. So it is our own fault only
/// where this machine itself knows no way. "Host unreachable" may be a gateway of ours that is gone, or any host's word: it is no
/// answer, and our outage only where most miners are silent at once ([`crate::lease::health::Outage`]), like silence itself.
fn is_our_own(error: &std::io::Error, has_way: bool) -> bool {
    let is = |errno: Errno| error.raw_os_error() == Some(errno.raw_os_error());
    match error.kind() {
        ErrorKind::NetworkUnreachable => !has_way,
        // A rule of this machine says EPERM. ICMPv6 says "prohibited" from afar, which is EACCES here.
        ErrorKind::PermissionDenied => !has_way || is(Errno::PERM),
        // No packet from afar says these.
        ErrorKind::NetworkDown | ErrorKind::AddrNotAvailable => true,
        // This process or machine has no descriptors or memory left.
        _ => [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM].into_iter().any(is),
    }
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
        use rustix::io::Errno;
        let own = |errno: Errno, has_way| is_our_own(&std::io::Error::from_raw_os_error(errno.raw_os_error()), has_way);
        for lacks in [Errno::MFILE, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::NETDOWN, Errno::PERM] {
            assert!(own(lacks, true) && own(lacks, false), "{lacks}");
        }
        assert!(own(Errno::NETUNREACH, false));
    }

    #[test]
    fn that_the_other_side_sends_word_that_there_is_no_way_to_it_is_no_fault_of_ours() {
        let words = [Errno::NETUNREACH, Errno::HOSTUNREACH, Errno::CONNREFUSED, Errno::CONNRESET, Errno::TIMEDOUT];
        // "Prohibited", by ICMPv6.
        for word in words.into_iter().chain([Errno::ACCESS]) {
            assert!(!is_our_own(&std::io::Error::from_raw_os_error(word.raw_os_error()), true), "{word}");
        }
    }

    #[tokio::test]
    async fn a_way_is_looked_up_on_this_machine_alone() {
        assert!(has_way(SocketAddr::from(([127, 0, 0, 1], 1))).await, "nobody has to listen there");
    }
}
