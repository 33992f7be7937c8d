//! How an SSH server is known by its first words.

use tokio::io::{AsyncRead, AsyncReadExt as _};

/// What an SSH server says first (RFC 4253, 4.2). Other lines may stand before it.
const BANNER: &[u8] = b"SSH-2.0-";
/// The most bytes that are read for it.
const MAX_BANNER: usize = 4 * 1024;

/// Whether one of the first lines that come over a connection is an SSH server's. Waits for as long as the other side is silent.
pub async fn ssh_greets(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut said = Vec::new();
    let mut chunk = [0; 256];
    while said.len() < MAX_BANNER {
        match stream.read(&mut chunk).await {
            Ok(0) | Err(_) => return false,
            Ok(count) => said.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
        if said.split(|b| *b == b'\n').any(|line| line.starts_with(BANNER)) {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_ssh_server_is_known_by_a_line_and_anything_else_is_none() {
        for (said, is_one) in [
            (&b"SSH-2.0-x\r\n"[..], true),
            (b"welcome\r\nSSH-2.0-x\r\n", true),
            (b"SSH-1.99-x\r\n", false),
            (b"x SSH-2.0-x\r\n", false),
            (b"", false),
            (&[b'x'; 3 * MAX_BANNER], false),
        ] {
            assert_eq!(ssh_greets(&mut &*said).await, is_one);
        }
    }
}
