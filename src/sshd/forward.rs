//! Forwarded connections: to where the client asks for, and from ports of this container to the client.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use russh::server::{ChannelOpenHandle, Handle, Msg};
use russh::{ChannelOpenFailure, ChannelWriteHalf};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::connection::Channels;
use super::inlet::Outlet;
use super::{log, resolve};

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);
/// How long a client may take to say whether it takes a connection.
const CONFIRM: Duration = Duration::from_secs(30);
/// How long what was sent before a channel's end may take to be written.
const LAST_BYTES: Duration = Duration::from_secs(10);
/// How long to wait after a failed accept, when files have run out for example.
const AFTER_FAILED_ACCEPT: Duration = Duration::from_millis(200);
/// How much is read at once, in bytes.
const READ: usize = 32 << 10;

/// Where a client wants to be connected to.
#[derive(Debug)]
pub(crate) enum To {
    /// A name or an address, and a port.
    Tcp(String, u16),
    /// A socket's path in this container.
    Unix(PathBuf),
}

/// Connects a channel, and passes bytes until both sides have ended.
pub(crate) async fn connect(
    to: To,
    channel: ChannelWriteHalf<Msg>,
    outlet: Outlet,
    reply: ChannelOpenHandle,
    channels: Arc<Channels>,
) {
    let id = channel.id();
    let connected = match &to {
        To::Tcp(host, port) => within(CONNECT, connect_tcp(host, *port)).await.map(Either::Tcp),
        To::Unix(path) => within(CONNECT, UnixStream::connect(path)).await.map(Either::Unix),
    };
    match connected {
        Ok(stream) => {
            reply.accept().await;
            match stream {
                Either::Tcp(stream) => relay(stream, channel, outlet).await,
                Either::Unix(stream) => relay(stream, channel, outlet).await,
            }
        }
        Err(error) => {
            log::say(format_args!("cannot forward to {to:?}: {error}"));
            reply.reject(ChannelOpenFailure::ConnectFailed).await;
            channels.remove(id);
        }
    }
}

enum Either {
    Tcp(TcpStream),
    Unix(UnixStream),
}

async fn within<T>(limit: Duration, made: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    tokio::time::timeout(limit, made).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in resolve::addresses(host).await? {
        match TcpStream::connect(SocketAddr::new(address, port)).await {
            Ok(stream) => {
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A port that is forwarded to the client for as long as this is kept.
#[derive(Debug)]
pub(crate) struct Listening {
    port: u16,
    task: JoinHandle<()>,
}

impl Listening {
    /// The port, also where the client left it to this server.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Forwards a port of this container's own address to the client. Whatever address the client names, nobody outside the
/// container is let in: the miner publishes the ports that a renter may offer.
///
/// # Errors
///
/// The port is in use, or not for this user.
pub(crate) async fn listen(
    address: String,
    port: u16,
    handle: Handle,
    channels: Arc<Channels>,
) -> io::Result<Listening> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let port = listener.local_addr()?.port();
    let task = tokio::spawn(async move {
        loop {
            let Ok((stream, from)) = listener.accept().await else {
                tokio::time::sleep(AFTER_FAILED_ACCEPT).await;
                continue;
            };
            tokio::spawn(offer(stream, from, address.clone(), port, handle.clone(), channels.clone()));
        }
    });
    Ok(Listening { port, task })
}

/// Offers a connection to the client.
async fn offer(
    stream: TcpStream,
    from: SocketAddr,
    address: String,
    port: u16,
    handle: Handle,
    channels: Arc<Channels>,
) {
    let _ = stream.set_nodelay(true);
    let opened = async {
        let asked = handle.channel_open_forwarded_tcpip(
            address,
            u32::from(port),
            from.ip().to_string(),
            u32::from(from.port()),
        );
        let (_, channel) = asked.await.ok()?.split();
        let outlet = channels.opened(channel.id()).await;
        Some((channel, outlet))
    };
    if let Ok(Some((channel, outlet))) = tokio::time::timeout(CONFIRM, opened).await {
        relay(stream, channel, outlet).await;
    }
}

/// Passes bytes both ways until both sides have ended, or the client is gone.
async fn relay<S: AsyncRead + AsyncWrite>(stream: S, channel: ChannelWriteHalf<Msg>, outlet: Outlet) {
    let (mut reader, mut writer) = tokio::io::split(stream);
    // Signals and sizes are for programs.
    let Outlet { mut chunks, gone, .. } = outlet;
    let outward = async {
        let mut buffer = vec![0; READ];
        while let Ok(read @ 1..) = reader.read(&mut buffer).await {
            if channel.data_bytes(buffer[..read].to_vec()).await.is_err() {
                break;
            }
        }
        let _ = channel.eof().await;
    };
    let inward = async {
        while let Some(chunk) = chunks.recv().await {
            if chunk.is_empty() || writer.write_all(&chunk).await.is_err() {
                break;
            }
        }
        let _ = writer.shutdown().await;
    };
    tokio::pin!(outward, inward, gone);
    let (mut sent, mut written) = (false, false);
    while !(sent && written) {
        tokio::select! {
            () = &mut outward, if !sent => sent = true,
            () = &mut inward, if !written => written = true,
            _ = &mut gone => {
                if !written {
                    let _ = tokio::time::timeout(LAST_BYTES, inward).await;
                }
                return;
            }
        }
    }
    let _ = channel.close().await;
}
