//! What a client sends into a channel, until the channel's program takes it.
//!
//! A client may send into a channel what its window allows, and russh opens the window again as soon as the bytes are here,
//! not when the program has taken them. Waiting in the connection's loop until there is room would stop the whole connection:
//! programs that write before they read what they were sent would wait for ever, for their output waits too. So bytes are
//! queued here, and the windows of the connection get smaller the more is queued: [`window`].

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pty_process::Size;
use rustix::process::Signal;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, mpsc, oneshot, watch};

/// The window of a channel whose connection has little queued, in bytes: as OpenSSH's.
pub(crate) const WINDOW: u32 = 2 << 20;
/// The window while more than `SOME` is queued, and that while more than `MUCH` is. The last is the smallest that russh opens
/// again at all: the client goes on with a byte or two for each trip to it and back.
const NARROW: u32 = 64 << 10;
const NARROWEST: u32 = 2;
const SOME: usize = 1 << 20;
const MUCH: usize = 8 << 20;
/// More than this is not queued for a connection, in bytes: it waits, and after so long the connection ends. Who minds the
/// windows comes here only with many channels whose programs take nothing.
const MOST: usize = 32 << 20;
const PATIENCE: Duration = Duration::from_secs(30);
/// How long a connection with very much queued is left alone before the next byte is taken from it.
const BREATH: Duration = Duration::from_millis(5);
/// What a chunk is counted with beside its bytes.
const OVERHEAD: usize = 64;
/// Signals that wait for a program. More are dropped: one of many is enough.
const SIGNALS: usize = 16;

/// The size of the window that a client is given next, for so many queued bytes of its connection.
pub(crate) fn window(queued: usize) -> u32 {
    match queued {
        MUCH.. => NARROWEST,
        SOME.. => NARROW,
        _ => WINDOW,
    }
}

/// What is queued for all channels of a connection.
#[derive(Debug, Default)]
pub(crate) struct Queued {
    bytes: AtomicUsize,
    less: Notify,
}

impl Queued {
    /// In bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    async fn room(&self) {
        loop {
            let less = self.less.notified();
            if self.bytes() < MOST {
                return;
            }
            less.await;
        }
    }
}

/// Bytes that are counted until they are dropped.
#[derive(Debug)]
pub(crate) struct Chunk {
    bytes: Vec<u8>,
    queued: Arc<Queued>,
}

impl Chunk {
    fn new(bytes: &[u8], queued: &Arc<Queued>) -> Self {
        queued.bytes.fetch_add(bytes.len() + OVERHEAD, Ordering::Relaxed);
        Self { bytes: bytes.to_vec(), queued: queued.clone() }
    }
}

impl std::ops::Deref for Chunk {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        self.queued.bytes.fetch_sub(self.bytes.len() + OVERHEAD, Ordering::Relaxed);
        self.queued.less.notify_one();
    }
}

/// The programs of a connection have not taken what was sent to them for too long.
#[derive(Debug, thiserror::Error)]
#[error("its programs took nothing of {} MiB for {} s", MOST >> 20, PATIENCE.as_secs())]
pub(crate) struct Stuck;

/// The connection's end of a channel. Dropped when the channel or its connection ends.
#[derive(Debug)]
pub(crate) struct Inlet {
    chunks: mpsc::UnboundedSender<Chunk>,
    signals: mpsc::Sender<Signal>,
    size: watch::Sender<Size>,
    /// Dropped with this.
    _open: oneshot::Sender<()>,
}

/// The program's end of a channel.
#[derive(Debug)]
pub(crate) struct Outlet {
    /// What was sent; an empty chunk says that no more follows. Bounded by what is queued for the connection.
    pub(crate) chunks: mpsc::UnboundedReceiver<Chunk>,
    /// Signals for the program.
    pub(crate) signals: mpsc::Receiver<Signal>,
    /// The size of the client's terminal.
    pub(crate) size: watch::Receiver<Size>,
    /// Ends when the channel or its connection does.
    pub(crate) gone: oneshot::Receiver<()>,
}

/// Both ends of a channel.
pub(crate) fn channel() -> (Inlet, Outlet) {
    let (chunks, chunks_out) = mpsc::unbounded_channel();
    let (signals, signals_out) = mpsc::channel(SIGNALS);
    let (size, size_out) = watch::channel(Size::new(0, 0));
    let (open, gone) = oneshot::channel();
    let outlet = Outlet { chunks: chunks_out, signals: signals_out, size: size_out, gone };
    (Inlet { chunks, signals, size, _open: open }, outlet)
}

/// What takes a channel's bytes: a part of the inlet that can be held without it.
#[derive(Debug, Clone)]
pub(crate) struct Mouth(mpsc::WeakUnboundedSender<Chunk>);

impl Mouth {
    /// Queues bytes, which must not be none. Those for a program that takes no more are dropped.
    ///
    /// # Errors
    ///
    /// [`Stuck`]: the connection is to end.
    pub(crate) async fn push(&self, bytes: &[u8], queued: &Arc<Queued>) -> Result<(), Stuck> {
        if queued.bytes() >= MUCH {
            tokio::time::sleep(BREATH).await;
        }
        tokio::time::timeout(PATIENCE, queued.room()).await.map_err(|_| Stuck)?;
        if let Some(chunks) = self.0.upgrade() {
            let _ = chunks.send(Chunk::new(bytes, queued));
        }
        Ok(())
    }
}

impl Inlet {
    /// What takes bytes.
    pub(crate) fn mouth(&self) -> Mouth {
        Mouth(self.chunks.downgrade())
    }

    /// No more bytes follow.
    pub(crate) fn end(&self, queued: &Arc<Queued>) {
        let _ = self.chunks.send(Chunk::new(&[], queued));
    }

    /// Passes a signal on.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = self.signals.try_send(signal);
    }

    /// Passes the size of the client's terminal on.
    pub(crate) fn resize(&self, size: Size) {
        self.size.send_replace(size);
    }
}

/// Writes what comes, closes `writer` when no more follows, and ends when the channel does. What a writer does not take any
/// more is dropped, so that its client does not wait.
pub(crate) async fn feed(chunks: &mut mpsc::UnboundedReceiver<Chunk>, writer: impl AsyncWrite + Unpin) {
    let mut writer = Some(writer);
    while let Some(chunk) = chunks.recv().await {
        let Some(open) = &mut writer else { continue };
        if chunk.is_empty() {
            let _ = open.shutdown().await;
            writer = None;
        } else if open.write_all(&chunk).await.is_err() {
            writer = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_get_smaller_the_more_is_queued() {
        assert_eq!([0, SOME - 1, SOME, MUCH - 1, MUCH, usize::MAX].map(window), [WINDOW, WINDOW, NARROW, NARROW, 2, 2]);
        // russh opens a window again when less than half is left of it.
        const { assert!(NARROWEST / 2 > 0) };
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_come_out_in_order_and_are_counted_until_they_are_taken() {
        let queued = Arc::new(Queued::default());
        let (inlet, mut outlet) = channel();
        for bytes in [&b"one "[..], b"two"] {
            inlet.mouth().push(bytes, &queued).await.unwrap();
        }
        inlet.end(&queued);
        assert_eq!(queued.bytes(), 7 + 3 * OVERHEAD);
        drop(inlet);
        assert!(outlet.gone.await.is_err());
        let mut written = Vec::new();
        feed(&mut outlet.chunks, &mut written).await;
        assert_eq!((written, queued.bytes()), (b"one two".to_vec(), 0));
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_than_the_bound_is_queued_and_it_goes_on_when_there_is_room() {
        let queued = Arc::new(Queued::default());
        let (inlet, mut outlet) = channel();
        let block = vec![7; 1 << 20];
        let mut pushed = 0;
        while tokio::time::timeout(PATIENCE / 2, inlet.mouth().push(&block, &queued)).await.is_ok() {
            pushed += 1;
        }
        assert!((MOST >> 20..=(MOST >> 20) + 1).contains(&pushed), "{pushed}");
        let waits = inlet.mouth();
        let waits = {
            let (queued, block) = (queued.clone(), block.clone());
            tokio::spawn(async move { waits.push(&block, &queued).await })
        };
        tokio::time::sleep(PATIENCE / 2).await;
        drop((outlet.chunks.recv().await, outlet.chunks.recv().await));
        waits.await.unwrap().unwrap();
        while inlet.mouth().push(&block, &queued).await.is_ok() {}
        drop(outlet);
        assert_eq!(queued.bytes(), 0, "what a program leaves is given back");
        inlet.mouth().push(&block, &queued).await.unwrap();
        assert_eq!(queued.bytes(), 0);
    }
}
