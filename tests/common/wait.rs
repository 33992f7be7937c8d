//! Waits that look at a state, and ports for those who must know theirs before they start.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// No wait of a test reaches this unless something is wrong.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// Looks again and again until there is something to see, at most [`LONG`].
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let all = async {
        loop {
            if let Some(seen) = look().await {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(LONG, all).await.unwrap_or_else(|_| panic!("waited too long: {what}"))
}

/// The first of 16 ports in a row that nobody uses, outside the range that the system gives to others.
pub(crate) fn free_ports() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = (std::process::id() % 1_000) as u16 * 16;
    loop {
        let port = 12_000 + (first + NEXT.fetch_add(16, Ordering::SeqCst)) % 16_000;
        if (port..port + 16).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()) {
            return port;
        }
    }
}
