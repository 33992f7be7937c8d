//! SFTP version 3 with the extensions of OpenSSH that its `sftp` and `scp`, and paramiko, make use of.
//!
//! Requests are answered one after the other, in order; the next is looked at when the client has room for the answer. Files
//! are read and written on a thread that may block. Everything is done as the user that this process runs as.

mod attributes;
mod files;
mod packet;

use std::path::PathBuf;

use russh::ChannelWriteHalf;
use russh::server::Msg;

use self::files::Files;
use self::packet::{Cutter, Malformed};
use super::inlet::Outlet;
use super::log;

/// Answers a client's requests until the channel ends. Names that are not absolute are below `home`.
pub(crate) async fn serve(outlet: Outlet, channel: ChannelWriteHalf<Msg>, home: PathBuf) {
    let Outlet { mut chunks, mut gone, .. } = outlet;
    let (mut cutter, mut files) = (Cutter::default(), Files::new(home));
    let (mut status, mut left) = (0, false);
    // What was sent before the end is still done.
    'requests: while let Some(chunk) = chunks.recv().await {
        if chunk.is_empty() {
            break;
        }
        cutter.push(&chunk);
        drop(chunk);
        loop {
            let request = match cutter.next() {
                Ok(Some(request)) => request,
                Ok(None) => break,
                Err(Malformed) => {
                    log::say(format_args!("an SFTP client sends no packets of SFTP"));
                    status = 255;
                    break 'requests;
                }
            };
            let answered = tokio::task::spawn_blocking(move || {
                let reply = files.answer(&request);
                (files, reply)
            });
            let Ok((back, reply)) = answered.await else { return };
            files = back;
            if !left {
                tokio::select! {
                    sent = channel.data_bytes(reply) => left = sent.is_err(),
                    _ = &mut gone => left = true,
                }
            }
        }
    }
    let _ = channel.exit_status(status).await;
    let _ = channel.eof().await;
    let _ = channel.close().await;
}
