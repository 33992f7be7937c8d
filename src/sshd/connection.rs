//! A connection: what its client may do, and what it asks for.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use russh::keys::{Algorithm, HashAlg, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, PublicKeyOffer, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId, ChannelOpenFailure, ChannelWriteHalf, MethodKind, MethodSet, Pty, Sig};
use tokio::sync::Notify;

use super::access::Access;
use super::account::Account;
use super::inlet::{self, Inlet, Outlet, Queued};
use super::launch::Launcher;
use super::programs::Programs;
use super::session::{self, Wanted};
use super::terminal::{self, Terminal};
use super::{environment, forward, log, sftp};

/// Channels that a connection may have open at once: sessions and forwarded connections.
const CHANNELS: usize = 128;
/// Ports that a connection may have forwarded from here at once.
const FORWARDS: usize = 16;
/// How long a wrong password takes beside its hash.
const AFTER_WRONG_PASSWORD: Duration = Duration::from_secs(2);

/// What all connections share.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Who may log in.
    pub(crate) access: Access,
    /// How programs are started.
    pub(crate) launcher: Launcher,
    /// Those that run.
    pub(crate) programs: Arc<Programs>,
}

/// Why a connection is ended by this server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Ended {
    /// The protocol, or the connection itself.
    #[error(transparent)]
    Ssh(#[from] russh::Error),
    /// Too much waits for its programs.
    #[error(transparent)]
    Stuck(#[from] inlet::Stuck),
}

/// The channels of a connection; also reached by the tasks that open channels.
#[derive(Debug, Default)]
pub(crate) struct Channels {
    open: Mutex<HashMap<ChannelId, Inlet>>,
    /// Those that this server has opened and whose task does not know yet.
    opened: Mutex<HashMap<ChannelId, Outlet>>,
    changed: Notify,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Channels {
    /// Makes the ends of a channel; `None` if there are too many.
    fn add(&self, id: ChannelId) -> Option<Outlet> {
        let mut open = lock(&self.open);
        if open.len() >= CHANNELS {
            return None;
        }
        let (inlet, outlet) = inlet::channel();
        open.insert(id, inlet);
        Some(outlet)
    }

    /// Forgets a channel: its task sees that it is gone.
    pub(crate) fn remove(&self, id: ChannelId) {
        lock(&self.open).remove(&id);
        lock(&self.opened).remove(&id);
    }

    /// The end of a channel that this server has opened, once the client has confirmed it.
    pub(crate) async fn opened(&self, id: ChannelId) -> Outlet {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(outlet) = lock(&self.opened).remove(&id) {
                return outlet;
            }
            changed.await;
        }
    }
}

/// What a session's client has asked for before it asks for a program.
struct Prepared {
    channel: ChannelWriteHalf<Msg>,
    outlet: Outlet,
    terminal: Option<Terminal>,
    set: Vec<(String, String)>,
}

/// The server's side of a connection.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    client: SocketAddr,
    /// As in `SSH_CONNECTION`.
    ends: [String; 4],
    /// Told when somebody has logged in.
    logged_in: Arc<Notify>,
    /// The account, once somebody has tried to log in.
    account: Option<Account>,
    queued: Arc<Queued>,
    channels: Arc<Channels>,
    prepared: HashMap<ChannelId, Prepared>,
    forwards: HashMap<(String, u32), forward::Listening>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        // Tasks hold the channels too: they are to see that all are gone.
        lock(&self.channels.open).clear();
        lock(&self.channels.opened).clear();
    }
}

impl Connection {
    /// A connection from `client`, which came in at `own`.
    pub(crate) fn new(shared: Arc<Shared>, client: SocketAddr, own: SocketAddr, logged_in: Arc<Notify>) -> Self {
        let text = |address: SocketAddr| [address.ip().to_canonical().to_string(), address.port().to_string()];
        let ([client_ip, client_port], [own_ip, own_port]) = (text(client), text(own));
        Self {
            shared,
            client,
            ends: [client_ip, client_port, own_ip, own_port],
            logged_in,
            account: None,
            queued: Arc::default(),
            channels: Arc::default(),
            prepared: HashMap::new(),
            forwards: HashMap::new(),
        }
    }

    /// Whether there is an account of this name. Looked up once for a connection.
    async fn knows(&mut self, user: &str) -> bool {
        if self.account.is_none() {
            self.account = tokio::task::spawn_blocking(Account::look_up).await.ok();
        }
        self.account.as_ref().is_some_and(|account| account.is_called(user))
    }

    /// How one may log in now.
    async fn methods(&self) -> MethodSet {
        let password = self.shared.access.takes_passwords().await;
        let all = [MethodKind::PublicKey, MethodKind::Password];
        MethodSet::from(if password { &all[..] } else { &all[..1] })
    }

    /// The name of the file that lets this key in. RSA with SHA-1 never does.
    async fn finds(&mut self, user: &str, key: &PublicKey, algorithm: &Algorithm) -> Option<&'static str> {
        if matches!(algorithm, Algorithm::Rsa { hash: None }) || !self.knows(user).await {
            return None;
        }
        self.shared.access.finds(key).await
    }

    /// Runs a program in a session that has none yet. False if it has.
    fn run(&mut self, id: ChannelId, wanted: &Wanted, session: &Session) -> bool {
        let (Some(prepared), Some(account)) = (self.prepared.remove(&id), &self.account) else { return false };
        let Prepared { channel, outlet, terminal, set } = prepared;
        match session::start(&self.shared, wanted, account, &self.ends, &set, terminal) {
            Ok(running) => {
                tokio::spawn(session::attend(running, outlet, channel, session.handle()));
            }
            Err(why) => {
                tokio::spawn(async move { session::refuse(&why, channel).await });
            }
        }
        true
    }
}

/// Answers a request of a session.
fn answer(done: bool, id: ChannelId, session: &mut Session) -> Result<(), Ended> {
    let answered = if done { session.channel_success(id) } else { session.channel_failure(id) };
    Ok(answered?)
}

impl Handler for Connection {
    type Error = Ended;

    async fn auth_none(&mut self, _user: &str) -> Result<Auth, Ended> {
        Ok(Auth::Reject { proceed_with_methods: Some(self.methods().await), partial_success: false })
    }

    async fn auth_password(&mut self, user: &str, password: &str) -> Result<Auth, Ended> {
        // A wrong name takes as long as a wrong password.
        let opens = self.shared.access.opens(password).await;
        if self.knows(user).await && opens {
            log::say(format_args!("{}: logged in with the password", self.client));
            return Ok(Auth::Accept);
        }
        log::say(format_args!("{}: refused a password", self.client));
        tokio::time::sleep(AFTER_WRONG_PASSWORD).await;
        Ok(Auth::Reject { proceed_with_methods: Some(self.methods().await), partial_success: false })
    }

    async fn auth_publickey_offered(&mut self, user: &str, offer: PublicKeyOffer<'_>) -> Result<Auth, Ended> {
        let found = self.finds(user, offer.public_key, offer.algorithm).await;
        Ok(if found.is_some() { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, Ended> {
        // Looked up again: the key may have been taken away since it was offered.
        let fingerprint = key.public_key.fingerprint(HashAlg::Sha256);
        let Some(file) = self.finds(user, key.public_key, key.algorithm).await else {
            log::say(format_args!("{}: refused key {fingerprint}", self.client));
            return Ok(Auth::reject());
        };
        log::say(format_args!("{}: logged in with {file} {fingerprint}", self.client));
        Ok(Auth::Accept)
    }

    async fn auth_succeeded(&mut self, _session: &mut Session) -> Result<(), Ended> {
        self.logged_in.notify_one();
        Ok(())
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Ended> {
        let Some(outlet) = self.channels.add(channel.id()) else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        // What is sent comes through `data`: the reading half would stop the connection when it is full.
        let (_, channel) = channel.split();
        self.prepared.insert(channel.id(), Prepared { channel, outlet, terminal: None, set: Vec::new() });
        reply.accept().await;
        Ok(())
    }

    async fn channel_open_direct_tcpip(
        &mut self,
        channel: Channel<Msg>,
        host: &str,
        port: u32,
        _from: &str,
        _from_port: u32,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Ended> {
        let (Some(outlet), Ok(port)) = (self.channels.add(channel.id()), u16::try_from(port)) else {
            self.channels.remove(channel.id());
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let (_, channel) = channel.split();
        tokio::spawn(forward::connect(
            forward::To::Tcp(host.to_owned(), port),
            channel,
            outlet,
            reply,
            self.channels.clone(),
        ));
        Ok(())
    }

    async fn channel_open_direct_streamlocal(
        &mut self,
        channel: Channel<Msg>,
        path: &str,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), Ended> {
        let Some(outlet) = self.channels.add(channel.id()) else {
            reply.reject(ChannelOpenFailure::ResourceShortage).await;
            return Ok(());
        };
        let (_, channel) = channel.split();
        tokio::spawn(forward::connect(forward::To::Unix(path.into()), channel, outlet, reply, self.channels.clone()));
        Ok(())
    }

    async fn channel_open_confirmation(
        &mut self,
        id: ChannelId,
        _: u32,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Ended> {
        match self.channels.add(id) {
            Some(outlet) => {
                lock(&self.channels.opened).insert(id, outlet);
                self.channels.changed.notify_waiters();
            }
            None => session.close(id)?,
        }
        Ok(())
    }

    async fn tcpip_forward(&mut self, address: &str, port: &mut u32, session: &mut Session) -> Result<bool, Ended> {
        let Ok(wanted) = u16::try_from(*port) else { return Ok(false) };
        if self.forwards.len() >= FORWARDS {
            return Ok(false);
        }
        match forward::listen(address.to_owned(), wanted, session.handle(), self.channels.clone()).await {
            Ok(listening) => {
                *port = listening.port().into();
                self.forwards.insert((address.to_owned(), *port), listening);
                Ok(true)
            }
            Err(error) => {
                log::say(format_args!("{}: cannot forward port {wanted}: {error}", self.client));
                Ok(false)
            }
        }
    }

    async fn cancel_tcpip_forward(&mut self, address: &str, port: u32, _: &mut Session) -> Result<bool, Ended> {
        Ok(self.forwards.remove(&(address.to_owned(), port)).is_some())
    }

    async fn data(&mut self, id: ChannelId, data: &[u8], _: &mut Session) -> Result<(), Ended> {
        let mouth = lock(&self.channels.open).get(&id).map(Inlet::mouth);
        if let (Some(mouth), false) = (mouth, data.is_empty()) {
            mouth.push(data, &self.queued).await?;
        }
        Ok(())
    }

    fn adjust_window(&mut self, _: ChannelId, _: u32) -> u32 {
        inlet::window(self.queued.bytes())
    }

    async fn channel_eof(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Ended> {
        if let Some(inlet) = lock(&self.channels.open).get(&id) {
            inlet.end(&self.queued);
        }
        Ok(())
    }

    async fn channel_close(&mut self, id: ChannelId, _: &mut Session) -> Result<(), Ended> {
        self.prepared.remove(&id);
        self.channels.remove(id);
        Ok(())
    }

    async fn pty_request(
        &mut self,
        id: ChannelId,
        kind: &str,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        modes: &[(Pty, u32)],
        session: &mut Session,
    ) -> Result<(), Ended> {
        let size = terminal::size(columns, rows, width, height);
        let done = match self.prepared.get_mut(&id) {
            Some(prepared) if prepared.terminal.is_none() => match Terminal::open(kind, size, modes) {
                Ok(terminal) => {
                    prepared.terminal = Some(terminal);
                    true
                }
                Err(error) => {
                    log::say(format_args!("{}: no terminal: {error}", self.client));
                    false
                }
            },
            _ => false,
        };
        answer(done, id, session)
    }

    async fn window_change_request(
        &mut self,
        id: ChannelId,
        columns: u32,
        rows: u32,
        width: u32,
        height: u32,
        session: &mut Session,
    ) -> Result<(), Ended> {
        if let Some(inlet) = lock(&self.channels.open).get(&id) {
            inlet.resize(terminal::size(columns, rows, width, height));
        }
        answer(true, id, session)
    }

    async fn env_request(
        &mut self,
        id: ChannelId,
        name: &str,
        value: &str,
        session: &mut Session,
    ) -> Result<(), Ended> {
        let done = match self.prepared.get_mut(&id) {
            Some(prepared) if environment::may_set(name, value, prepared.set.len()) => {
                prepared.set.push((name.to_owned(), value.to_owned()));
                true
            }
            _ => false,
        };
        answer(done, id, session)
    }

    async fn shell_request(&mut self, id: ChannelId, session: &mut Session) -> Result<(), Ended> {
        let done = self.run(id, &Wanted::Shell, session);
        answer(done, id, session)
    }

    async fn exec_request(&mut self, id: ChannelId, line: &[u8], session: &mut Session) -> Result<(), Ended> {
        let done = self.run(id, &Wanted::Command(line.to_vec()), session);
        answer(done, id, session)
    }

    async fn subsystem_request(&mut self, id: ChannelId, name: &str, session: &mut Session) -> Result<(), Ended> {
        let prepared = if name == "sftp" { self.prepared.remove(&id) } else { None };
        let (done, home) = (prepared.is_some(), self.account.as_ref().map(|account| account.home.clone()));
        if let Some(Prepared { channel, outlet, .. }) = prepared {
            tokio::spawn(sftp::serve(outlet, channel, home.unwrap_or_else(|| "/".into())));
        }
        answer(done, id, session)
    }

    async fn signal(&mut self, id: ChannelId, name: Sig, session: &mut Session) -> Result<(), Ended> {
        let signal = session::signal_of(&name);
        if let (Some(signal), Some(inlet)) = (signal, lock(&self.channels.open).get(&id)) {
            inlet.signal(signal);
        }
        answer(signal.is_some(), id, session)
    }

    async fn x11_request(
        &mut self,
        id: ChannelId,
        _: bool,
        _: &str,
        _: &str,
        _: u32,
        session: &mut Session,
    ) -> Result<(), Ended> {
        answer(false, id, session)
    }
}
