//! Connections: how many there may be, how long one may take to log in, and their end.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use russh::server::{Config, RunningSession};
use russh::{Disconnect, MethodKind, MethodSet, Preferred, SshId};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::access::Access;
use super::connection::{Connection, Ended, Shared};
use super::launch::Launcher;
use super::programs::Programs;
use super::{inlet, log};

/// Connections at once, and those among them that have not logged in. One too many ends the oldest that has not logged in:
/// who only holds connections open keeps nobody out.
const CONNECTIONS: usize = 128;
const NEWCOMERS: usize = 32;
/// How long a client may take to log in, with a password to type.
const LOGIN: Duration = Duration::from_secs(60);
/// Attempts to log in of a connection: six, and the question of how one may that clients begin with.
const ATTEMPTS: usize = 7;
/// How long a refused key takes. A password takes longer: see `connection`.
const REFUSAL: Duration = Duration::from_millis(200);
/// A client that is silent is asked whether it is there, so often, and is gone after so many questions.
const KEEPALIVE: Duration = Duration::from_secs(60);
const KEEPALIVES: usize = 5;
/// The largest packet, in bytes: what every client must take.
const PACKET: u32 = 32 << 10;
/// Packets from a connection's programs that wait to be sent.
const WAITING: usize = 8;
/// How long the farewell to a client may take, and the end of all connections.
const FAREWELL: Duration = Duration::from_millis(200);
const END: Duration = Duration::from_secs(1);
/// How long to wait after a failed accept, when files have run out for example.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(200);

/// Why the server did not start.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A file of the directory cannot be used.
    #[error("{0}")]
    Files(String),
    /// The port cannot be had.
    #[error("cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    /// Signals cannot be waited for.
    #[error("cannot wait for signals: {0}")]
    Signals(std::io::Error),
}

/// Serves until SIGTERM or SIGINT, and then ends all connections and, within a few seconds, their programs.
///
/// # Errors
///
/// See [`Failure`].
pub async fn serve(dir: PathBuf, listen: SocketAddr) -> Result<(), Failure> {
    let access = Access::new(dir);
    let host_key = access.host_key().map_err(Failure::Files)?;
    let (mut terminate, mut interrupt) = (waits_for(SignalKind::terminate())?, waits_for(SignalKind::interrupt())?);
    // What has a handler here is at its default in programs: whoever started the server ignoring it must not keep them from hanging up.
    let _hangup = waits_for(SignalKind::hangup())?;
    let listener = TcpListener::bind(listen).await.map_err(|e| Failure::Listen(listen, e))?;
    let own = listener.local_addr().unwrap_or(listen);
    log::say(format_args!("listening on {own}, host key {}", host_key.fingerprint(russh::keys::HashAlg::Sha256)));

    let config = Arc::new(config(host_key));
    let shared = Arc::new(Shared { access, launcher: Launcher::prepare(), programs: Arc::new(Programs::default()) });
    let (guests, (ending, end)) = (Arc::new(Guests::default()), watch::channel(false));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, client)) => {
                    if let Some((seat, stream)) = guests.seat(stream) {
                        connections.spawn(attend(stream, client, seat, config.clone(), shared.clone(), end.clone()));
                    }
                }
                Err(error) => {
                    log::say(format_args!("cannot accept a connection: {error}"));
                    tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
                }
            },
            Some(_) = connections.join_next() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    drop(listener);
    log::say(format_args!("ending {} connections", connections.len()));
    ending.send_replace(true);
    let _ = tokio::time::timeout(END, async { while connections.join_next().await.is_some() {} }).await;
    shared.programs.end().await;
    Ok(())
}

fn waits_for(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind).map_err(Failure::Signals)
}

fn config(host_key: russh::keys::PrivateKey) -> Config {
    Config {
        server_id: SshId::Standard("SSH-2.0-compute-sshd".into()),
        methods: MethodSet::from(&[MethodKind::PublicKey, MethodKind::Password][..]),
        auth_rejection_time: REFUSAL,
        auth_rejection_time_initial: Some(Duration::ZERO),
        keys: vec![host_key],
        window_size: inlet::WINDOW,
        maximum_packet_size: PACKET,
        event_buffer_size: WAITING,
        preferred: Preferred::default(),
        max_auth_attempts: ATTEMPTS,
        // A session may be silent for days; one that is gone is found by the questions.
        inactivity_timeout: None,
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVES,
        ..Config::default()
    }
}

/// Sees to a connection until its end.
async fn attend(
    stream: TcpStream,
    client: SocketAddr,
    seat: Seat,
    config: Arc<Config>,
    shared: Arc<Shared>,
    mut end: watch::Receiver<bool>,
) {
    let _ = stream.set_nodelay(true);
    let Ok(own) = stream.local_addr() else { return };
    let logged_in = Arc::new(Notify::new());
    let connection = Connection::new(shared, client, own, logged_in.clone());
    let login = tokio::time::sleep(LOGIN);
    tokio::pin!(login);
    let running = tokio::select! {
        running = russh::server::run_stream(config, stream, connection) => running,
        () = &mut login => return,
        () = is_ending(&mut end) => return,
    };
    let mut running = match running {
        Ok(running) => running,
        Err(error) => return say_end(client, &error),
    };
    let mut newcomer = true;
    loop {
        tokio::select! {
            ended = &mut running => {
                if let Err(error) = ended {
                    say_end(client, &error);
                }
                return;
            }
            () = logged_in.notified(), if newcomer => {
                newcomer = false;
                seat.keep();
            }
            () = &mut login, if newcomer => {
                log::say(format_args!("{client}: did not log in within {} s", LOGIN.as_secs()));
                return seat.empty();
            }
            () = is_ending(&mut end) => {
                say_farewell(running).await;
                return seat.empty();
            }
        }
    }
}

async fn is_ending(end: &mut watch::Receiver<bool>) {
    let _ = end.wait_for(|end| *end).await;
}

async fn say_farewell(running: RunningSession<Connection>) {
    let handle = running.handle();
    let told = async {
        let _ = handle.disconnect(Disconnect::ByApplication, "the container is ending".into(), String::new()).await;
        let _ = running.await;
    };
    let _ = tokio::time::timeout(FAREWELL, told).await;
}

/// Most ends are in order, whatever the protocol calls them; what says something of an attack or a mistake is logged.
fn say_end(client: SocketAddr, error: &Ended) {
    use russh::Error;
    match error {
        Ended::Ssh(Error::Disconnect | Error::HUP | Error::IO(_)) => {}
        error => log::say(format_args!("{client}: connection ended: {error}")),
    }
}

/// The connections there are. Each is a copy of its socket, by which it can be ended whatever it is doing.
#[derive(Debug, Default)]
struct Guests(Mutex<Seats>);

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    newcomers: BTreeMap<u64, OwnedFd>,
    others: BTreeMap<u64, OwnedFd>,
}

impl Guests {
    fn seats(&self) -> std::sync::MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat for a connection; `None` if everybody there has logged in and no seat is left, or no file.
    fn seat(self: &Arc<Self>, stream: TcpStream) -> Option<(Seat, TcpStream)> {
        let stream = stream.into_std().ok()?;
        let copy = OwnedFd::from(stream.try_clone().ok()?);
        let stream = TcpStream::from_std(stream).ok()?;
        let mut seats = self.seats();
        if seats.newcomers.len() >= NEWCOMERS || seats.newcomers.len() + seats.others.len() >= CONNECTIONS {
            shut(&seats.newcomers.pop_first()?.1);
        }
        let number = seats.next;
        seats.next += 1;
        seats.newcomers.insert(number, copy);
        Some((Seat { guests: self.clone(), number }, stream))
    }
}

fn shut(socket: &OwnedFd) {
    let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
}

/// A connection's place among the others, given back when this is dropped.
#[derive(Debug)]
struct Seat {
    guests: Arc<Guests>,
    number: u64,
}

impl Seat {
    /// Its client has logged in.
    fn keep(&self) {
        let mut seats = self.guests.seats();
        if let Some(socket) = seats.newcomers.remove(&self.number) {
            seats.others.insert(self.number, socket);
        }
    }

    /// Ends the connection.
    fn empty(self) {
        let seats = self.guests.seats();
        for socket in [&seats.newcomers, &seats.others].into_iter().filter_map(|seats| seats.get(&self.number)) {
            shut(socket);
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut seats = self.guests.seats();
        seats.newcomers.remove(&self.number);
        seats.others.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncReadExt;

    #[tokio::test]
    async fn one_connection_too_many_ends_the_oldest_that_has_not_logged_in() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let guests = Arc::new(Guests::default());
        let mut clients = Vec::new();
        let mut connect = async || {
            let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let seated = guests.seat(listener.accept().await.unwrap().0);
            clients.push(client);
            seated
        };
        let first = connect().await.unwrap();
        first.0.keep();
        let mut others = Vec::new();
        for _ in 0..NEWCOMERS + 1 {
            others.push(connect().await.unwrap());
        }
        assert_eq!(clients[1].read(&mut [0]).await.unwrap(), 0, "the oldest newcomer is ended");
        for client in [0, 2, NEWCOMERS + 1] {
            assert!(clients[client].try_read(&mut [0]).is_err(), "{client} is not");
        }
        drop((first, others));
        let seats = guests.seats();
        assert!(seats.newcomers.is_empty() && seats.others.is_empty());
    }

    #[tokio::test]
    async fn where_everybody_has_logged_in_no_seat_is_left() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let guests = Arc::new(Guests::default());
        let mut all = Vec::new();
        for _ in 0..CONNECTIONS {
            all.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let (seat, stream) = guests.seat(listener.accept().await.unwrap().0).unwrap();
            seat.keep();
            all.push(stream);
            std::mem::forget(seat);
        }
        let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        assert!(guests.seat(listener.accept().await.unwrap().0).is_none());
    }
}
