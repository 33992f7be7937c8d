//! Owns one HTTP listener, on a TCP address or on the node's control socket: binding, limits, a self-check, draining, and
//! rebinding after a failure.
//!
//! Invariants: at most one server per incarnation; a restarted incarnation binds the same address again; the status
//! says `accepting` only while a connection to the own address succeeds; when the server has ended, or ten such connections
//! in a row failed, the next incarnation binds again.
//!
//! Design notes: the routes come in as a plain function, so that this actor knows nothing of what it serves. The
//! server's workers are threads of their own; a blocked actor does not stop them. On restart everything is rebuilt
//! from the [`ListenerSpec`]; nothing needs to survive.

use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::prelude::*;
use actix_web::body::{BodySize, MessageBody};
use actix_web::dev::{ServerHandle, Service};
use actix_web::{App, HttpServer, web};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

mod crowd;
mod linger;
mod reach;

pub use crowd::{Crowd, room};
pub use reach::Reach;

use crate::messages::listener::{CheckSelf, ListenerStatus, StopIntake};
use crate::runtime::{Ctx, Inspect, Supervised};
use crate::web::control::socket;
use crate::wire::axon::FromHere;

/// How often the listener connects to itself.
const SELF_CHECK: Duration = Duration::from_secs(1);
/// Failed checks in a row after which the listener begins anew.
const FAILED_CHECKS: u32 = 10;
/// How long such a connection may take.
const SELF_CHECK_DEADLINE: Duration = Duration::from_secs(1);

/// Connections beyond the limits that a worker holds until it has closed them.
const TO_CLOSE: usize = 64;

/// How long a connection may be idle before it is closed. Longer than any caller keeps one for its next request: our own
/// dendrite lets go after 4 s, so that no request meets a connection that is being closed.
const KEEP_ALIVE: Duration = Duration::from_secs(6);

/// Connections that wait to be taken; the system has its own limit (`net.core.somaxconn`). Beyond it a caller tries again
/// after a second, and what the standard library asks for, 128, is full as soon as somebody opens that many at once.
const BACKLOG: i32 = 4096;

/// How long the server throws away what a caller still sends over a connection that is being closed, so that the caller
/// hears why. Whatever that is: where callers are strangers, the [`Crowd`] does it instead, with a limit.
const LINGER: Duration = Duration::from_secs(1);

/// Registers the routes of a listener; called once for each worker thread.
pub type Routes = Arc<dyn Fn(&mut web::ServiceConfig) + Send + Sync>;

/// Where a listener listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// An address of this machine. Port 0 takes a free one, which later incarnations keep.
    Tcp(SocketAddr),
    /// The control socket in this data directory, whose lock the node holds.
    Control(PathBuf),
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Place::Tcp(address) => write!(f, "{address}"),
            Place::Control(dir) => write!(f, "{}", socket::path(dir).display()),
        }
    }
}

/// A socket that is bound and listens.
#[derive(Debug)]
pub enum Bound {
    /// On a TCP address.
    Tcp(TcpListener),
    /// On a path.
    Unix(UnixListener),
}

/// The user at the other end of a connection, as the kernel names it. Only connections to a path have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerUser(pub u32);

/// What to listen on, and what to serve there.
pub struct ListenerSpec {
    /// `axon`, `web` or `control`.
    pub name: &'static str,
    /// Where to listen.
    pub place: Place,
    /// Worker threads.
    pub workers: usize,
    /// Who may have how many connections; none: up to 1024 for each worker, whosever they are.
    pub crowd: Option<Crowd>,
    /// What is watched beside the own socket: only for an axon.
    pub reach: Option<Reach>,
    /// How long a client may take to send the head of its request.
    pub request_timeout: Duration,
    /// How long a connection may be idle between two requests.
    pub keep_alive: Duration,
    /// How long requests in flight may take when the server stops.
    pub drain: Duration,
    /// The routes.
    pub routes: Routes,
    bound: Mutex<Option<Bound>>,
}

impl ListenerSpec {
    /// What to serve on a socket that is bound already, so that a port in use is known before the node starts.
    /// `place` is the socket's own; later incarnations bind it again.
    pub fn bound(name: &'static str, listener: Bound, place: Place, workers: usize, routes: Routes) -> Self {
        ListenerSpec {
            name,
            place,
            workers,
            crowd: None,
            reach: None,
            request_timeout: Duration::from_secs(5),
            keep_alive: KEEP_ALIVE,
            drain: Duration::from_secs(5),
            routes,
            bound: Mutex::new(Some(listener)),
        }
    }

    fn listener(&self) -> std::io::Result<Bound> {
        let first = self.bound.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        match (first, &self.place) {
            (Some(listener), _) => Ok(listener),
            (None, Place::Tcp(address)) => TcpListener::bind(address).map(Bound::Tcp),
            (None, Place::Control(dir)) => socket::bind(dir).map(Bound::Unix),
        }
    }
}

/// The actor.
pub struct Listener {
    spec: Arc<ListenerSpec>,
    status: watch::Sender<ListenerStatus>,
    server: Option<ServerHandle>,
    quiet: reach::Quiet,
    /// Checks that failed in a row.
    failed: u32,
}

impl Listener {
    /// A listener that publishes its status on `status`.
    pub fn new(spec: Arc<ListenerSpec>, status: watch::Sender<ListenerStatus>) -> Self {
        Listener { spec, status, server: None, quiet: reach::Quiet::default(), failed: 0 }
    }

    fn serve(&mut self, ctx: &mut Ctx<Self>) -> std::io::Result<()> {
        let routes = self.spec.routes.clone();
        let listener = self.spec.listener()?;
        let crowd = self.spec.crowd.clone();
        let announced = self.spec.reach.as_ref().map(|reach| reach.announced.ip());
        // Connections beyond the crowd's limits must be taken to be closed, but not many of them at once: each holds memory.
        let max_connections = crowd.as_ref().map_or(1024, |crowd| crowd.limit().div_ceil(self.spec.workers) + TO_CLOSE);
        let linger = if crowd.is_some() { Duration::ZERO } else { LINGER };
        let server = HttpServer::new(move || {
            let routes = routes.clone();
            App::new().configure(move |c| routes(c)).wrap_fn(|request, service| {
                let busy = request.conn_data::<crowd::Member>().map(crowd::Member::busy);
                let reply = service.call(request);
                async move {
                    let reply = reply.await?;
                    if let (Some(busy), BodySize::Sized(bytes)) = (busy, reply.response().body().size()) {
                        busy.replied(bytes);
                    }
                    Ok(reply)
                }
            })
        })
        .workers(self.spec.workers)
        .max_connections(max_connections)
        .keep_alive(self.spec.keep_alive)
        .client_request_timeout(self.spec.request_timeout)
        .client_disconnect_timeout(linger)
        .shutdown_timeout(self.spec.drain.as_secs())
        .on_connect(move |io, data| {
            if let (Some(crowd), Some(stream)) = (&crowd, io.downcast_ref::<tokio::net::TcpStream>()) {
                if announced.is_some_and(|announced| reach::is_from_here(stream, announced)) {
                    data.insert(FromHere);
                }
                match crowd.join(stream) {
                    Some(member) => drop(data.insert(member)),
                    None => return,
                }
            }
            let peer = io.downcast_ref::<tokio::net::UnixStream>().and_then(|s| s.peer_cred().ok());
            if let Some(peer) = peer {
                data.insert(PeerUser(peer.uid()));
            }
        })
        .disable_signals();
        let server = match listener {
            Bound::Tcp(listener) => {
                // The standard library asks for 128. A full queue costs an honest caller a second, until it tries again.
                rustix::net::listen(&listener, BACKLOG)?;
                server.listen(listener)?
            }
            Bound::Unix(listener) => server.listen_uds(listener)?,
        }
        .run();
        self.server = Some(server.handle());
        // The server must outlive this incarnation long enough to hear `stop`, so it is a task of its own.
        let (tell, ended) = oneshot::channel();
        tokio::task::spawn_local(async move {
            // Nobody hears it once this incarnation is gone.
            let _ = tell.send(server.await);
        });
        ctx.spawn(ended.into_actor(self).map(|ended, act, ctx| {
            if act.server.is_none() {
                return; // it was told to stop
            }
            let why = match ended {
                Ok(Err(error)) => format!(": {error}"),
                Ok(Ok(())) | Err(_) => String::new(),
            };
            act.begin_anew(format!("the http server on {} ended{why}", act.spec.place), ctx);
        }));
        Ok(())
    }

    /// Ends this incarnation: the next one binds again.
    fn begin_anew(&self, problem: String, ctx: &mut Ctx<Self>) {
        self.publish(false, Some(problem.clone()));
        ctx.fail(problem);
    }

    /// Tries the announced address. What it finds is told, and changes nothing.
    fn dial(&self, ctx: &mut Ctx<Self>) {
        let Some(announced) = self.spec.reach.as_ref().map(|reach| reach.announced) else { return };
        if announced.ip().is_unspecified() {
            return; // nobody finds an axon there, this machine apart
        }
        ctx.spawn(reach::dial(announced).into_actor(self).map(move |dialled, act, _| {
            let Some(reach) = &act.spec.reach else { return };
            reach.metrics.axon_dialled(dialled.is_ok());
            if let Err(problem) = dialled {
                tracing::warn!(
                    address = %announced,
                    problem,
                    "the announced address could not be checked from here; behind a router that is usual"
                );
            }
        }));
    }

    fn publish(&self, accepting: bool, problem: Option<String>) {
        self.status.send_replace(ListenerStatus {
            name: self.spec.name,
            address: Some(self.spec.place.to_string()),
            accepting,
            problem,
        });
    }
}

async fn connect(place: Place) -> Result<(), String> {
    let connected = async {
        match &place {
            Place::Tcp(address) => tokio::net::TcpStream::connect(reachable(*address)).await.map(drop),
            Place::Control(dir) => {
                let at = socket::Reach::new(dir)?;
                tokio::net::UnixStream::connect(at.path()).await.map(drop)
            }
        }
    };
    match tokio::time::timeout(SELF_CHECK_DEADLINE, connected).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(format!("cannot connect to the own address {place}: {error}")),
        Err(_) => Err(format!("no connection to the own address {place} within {SELF_CHECK_DEADLINE:?}")),
    }
}

/// An address that reaches a listener bound to `address` from this machine.
fn reachable(address: SocketAddr) -> SocketAddr {
    let mut to = address;
    if address.ip().is_unspecified() {
        to.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    to
}

impl Actor for Listener {
    type Context = Ctx<Self>;

    fn started(&mut self, ctx: &mut Ctx<Self>) {
        if let Err(error) = self.serve(ctx) {
            let problem = format!("cannot listen on {}: {error}", self.spec.place);
            self.publish(false, Some(problem.clone()));
            ctx.fail(problem);
            return;
        }
        tracing::info!(listener = self.spec.name, address = %self.spec.place, "listening");
        self.publish(true, None);
        if self.spec.reach.is_some() {
            self.dial(ctx);
            ctx.run_interval(reach::DIAL, |act, ctx| act.dial(ctx));
            ctx.run_interval(reach::LOOK, |act, _| {
                if let Some(reach) = &act.spec.reach {
                    reach.look(&mut act.quiet, &act.spec.place.to_string(), Instant::now());
                }
            });
        }
        ctx.run_interval(SELF_CHECK, |act, ctx| {
            if act.server.is_none() {
                return; // the intake was stopped
            }
            if let Some(crowd) = &act.spec.crowd {
                crowd.close_idle(act.spec.request_timeout + act.spec.keep_alive, Instant::now());
            }
            ctx.spawn(connect(act.spec.place.clone()).into_actor(act).map(|seen, act, ctx| match seen {
                _ if act.server.is_none() => {}
                Ok(()) => {
                    act.failed = 0;
                    act.publish(true, None);
                }
                Err(problem) => {
                    tracing::warn!(listener = act.spec.name, problem, "self-connection failed");
                    act.failed += 1;
                    match act.failed < FAILED_CHECKS {
                        true => act.publish(false, Some(problem)),
                        false => act.begin_anew(format!("{FAILED_CHECKS} checks in a row failed: {problem}"), ctx),
                    }
                }
            }));
        });
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            // The command is sent by the call itself; the server's own task carries it out.
            drop(server.stop(false));
        }
    }
}

impl Supervised for Listener {
    const MESSAGES: &'static [&'static str] = &["StopIntake", "CheckSelf"];
}

impl Handler<StopIntake> for Listener {
    type Result = ResponseActFuture<Self, ()>;
    fn handle(&mut self, _: StopIntake, _: &mut Ctx<Self>) -> Self::Result {
        self.publish(false, Some("draining".into()));
        let server = self.server.take();
        Box::pin(
            async move {
                if let Some(server) = server {
                    server.stop(true).await;
                }
            }
            .into_actor(self),
        )
    }
}

impl Handler<CheckSelf> for Listener {
    type Result = ResponseActFuture<Self, bool>;
    fn handle(&mut self, _: CheckSelf, _: &mut Ctx<Self>) -> Self::Result {
        let to = self.spec.place.clone();
        Box::pin(async move { connect(to).await.is_ok() }.into_actor(self))
    }
}

impl Handler<Inspect> for Listener {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(serde_json::json!({ "status": &*self.status.borrow(), "workers": self.spec.workers }))
    }
}

#[cfg(test)]
mod tests;
