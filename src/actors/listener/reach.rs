//! Whether others can reach an axon: what can be found out from this side.
//!
//! The announced address is dialled at the start and every ten minutes. Many routers do not let a machine reach itself by its
//! public address, so a failure says only that it could not be checked from here; it makes nothing unready. What a miner
//! really needs to hear is [`Quiet`]: that nobody has asked it anything since its address is on chain.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::Crowd;
use crate::telemetry::NodeMetrics;
use crate::wire::AxonGate;

/// How often counts are published and [`Quiet`] is asked.
pub(super) const LOOK: Duration = Duration::from_secs(10);
/// How often the announced address is dialled.
pub(super) const DIAL: Duration = Duration::from_secs(600);
/// How long that may take.
const DIAL_DEADLINE: Duration = Duration::from_secs(10);
/// Silence that is worth a line.
const SILENCE: Duration = Duration::from_secs(600);
/// Time between two such lines.
const AGAIN: Duration = Duration::from_secs(3600);

/// What an axon's listener watches beside its own socket.
pub struct Reach {
    /// The axon's address as the chain shows it.
    pub announced: SocketAddr,
    /// Whether the chain shows it.
    pub on_chain: Box<dyn Fn() -> bool + Send + Sync>,
    /// Knows when the last request came.
    pub gate: Arc<AxonGate>,
    /// Knows who is connected.
    pub crowd: Crowd,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
}

impl Reach {
    /// Publishes what there is to count; a line for the operator, if nobody can reach this axon as it seems.
    pub(super) fn look(&self, quiet: &mut Quiet, listening: &str, now: Instant) {
        let last = self.gate.last_request_ms();
        let (open, turned_away) = self.crowd.count();
        self.metrics.axon_connections(open, turned_away);
        if let Some(last) = last {
            self.metrics.axon_last_request(last);
        }
        if let Some(silent) = quiet.look((self.on_chain)(), last, now) {
            tracing::warn!("{}", advice(self.announced, listening, silent));
        }
    }
}

/// Whether this connection says nothing of whether others can reach this machine, since it comes from itself. Where the
/// announced address is a loopback one, on a devnet, all callers are here.
pub(super) fn is_from_here(stream: &TcpStream, announced: IpAddr) -> bool {
    let (Ok(peer), Ok(local)) = (stream.peer_addr(), stream.local_addr()) else { return false };
    same_machine(peer.ip().to_canonical(), local.ip().to_canonical(), announced.to_canonical())
}

fn same_machine(peer: IpAddr, local: IpAddr, announced: IpAddr) -> bool {
    !announced.is_loopback() && (peer.is_loopback() || peer == local || peer == announced)
}

/// What an operator should check whose axon nobody asks.
fn advice(announced: SocketAddr, listening: &str, silent: Duration) -> String {
    let (minutes, port) = (silent.as_secs() / 60, announced.port());
    format!(
        "no request at all has arrived for {minutes} minutes: the chain shows this axon at {announced}, it listens on \
         {listening}. Check that the firewall lets TCP port {port} in, that a router in front forwards port {port} to this \
         machine, and that axon.external_ip is the address others reach it at. Try from another machine: \
         curl -m 5 http://{announced}/  (any answer, also 404, shows that it is reachable)"
    )
}

/// Connects to the announced address.
///
/// # Errors
/// Why it could not be reached from here.
pub(super) async fn dial(announced: SocketAddr) -> Result<(), String> {
    match timeout(DIAL_DEADLINE, TcpStream::connect(announced)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no connection within {DIAL_DEADLINE:?}")),
    }
}

/// Since when nobody asked, and whether that was told.
#[derive(Debug, Default)]
pub(super) struct Quiet {
    since: Option<Instant>,
    last: Option<u64>,
    told: Option<Instant>,
}

impl Quiet {
    /// Takes in whether the axon is on chain, and a mark that changes with each request. How long there was silence, when it
    /// is time to say so.
    fn look(&mut self, on_chain: bool, last: Option<u64>, now: Instant) -> Option<Duration> {
        if last != self.last {
            *self = Quiet { since: on_chain.then_some(now), last, told: None };
            return None;
        }
        if !on_chain {
            *self = Quiet { last, ..Quiet::default() };
            return None;
        }
        let silent = now.saturating_duration_since(*self.since.get_or_insert(now));
        let due = self.told.is_none_or(|told| now.saturating_duration_since(told) >= AGAIN);
        if silent < SILENCE || !due {
            return None;
        }
        self.told = Some(now);
        Some(silent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes(n: u64) -> Duration {
        Duration::from_secs(n * 60)
    }

    #[test]
    fn silence_is_told_after_ten_minutes_and_then_every_hour() {
        let (start, mut quiet) = (Instant::now(), Quiet::default());
        let mut told = Vec::new();
        for minute in 0..150 {
            if quiet.look(true, None, start + minutes(minute)).is_some() {
                told.push(minute);
            }
        }
        assert_eq!(told, [10, 70, 130]);
    }

    #[test]
    fn a_request_ends_the_silence_and_a_new_one_is_told_again() {
        let (start, mut quiet) = (Instant::now(), Quiet::default());
        assert_eq!(quiet.look(true, None, start), None);
        assert_eq!(quiet.look(true, Some(1), start + minutes(9)), None);
        assert_eq!(quiet.look(true, Some(1), start + minutes(18)), None);
        assert_eq!(quiet.look(true, Some(1), start + minutes(19)), Some(minutes(10)));
        assert_eq!(quiet.look(true, Some(2), start + minutes(20)), None);
        assert_eq!(quiet.look(true, Some(2), start + minutes(30)), Some(minutes(10)));
    }

    #[test]
    fn an_axon_that_is_not_on_chain_waits_for_nobody() {
        let (start, mut quiet) = (Instant::now(), Quiet::default());
        assert_eq!(quiet.look(false, None, start), None);
        assert_eq!(quiet.look(false, None, start + minutes(60)), None);
        assert_eq!(quiet.look(true, None, start + minutes(61)), None);
        assert_eq!(quiet.look(true, None, start + minutes(70)), None);
        assert!(quiet.look(true, None, start + minutes(71)).is_some());
    }

    #[test]
    fn a_call_from_this_machine_does_not_show_that_others_reach_it() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let seen = |peer, local, announced| same_machine(ip(peer), ip(local), ip(announced));
        assert!(seen("127.0.0.1", "127.0.0.1", "203.0.113.5"));
        assert!(seen("10.0.0.4", "10.0.0.4", "203.0.113.5"), "by its own address");
        assert!(seen("203.0.113.5", "10.0.0.4", "203.0.113.5"), "by the router's");
        assert!(!seen("198.51.100.1", "10.0.0.4", "203.0.113.5"));
        assert!(!seen("127.0.0.1", "127.0.0.1", "127.0.0.1"), "a devnet");
    }

    #[test]
    fn the_advice_names_the_address_the_port_and_a_command() {
        let text = advice("[2001:db8::1]:9001".parse().unwrap(), "0.0.0.0:8091", minutes(10));
        for part in ["10 minutes", "0.0.0.0:8091", "port 9001", "external_ip", "http://[2001:db8::1]:9001/"] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[actix_web::test]
    async fn an_address_where_nobody_listens_is_not_reached() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(dial(address).await, Ok(()));
        drop(listener);
        assert!(dial(address).await.is_err());
    }
}
