//! What a node and its prover say to each other over a pipe: frames with a hard bound on every length.
//!
//! Each side first sends 8 bytes of hello, which name program, version and side. A frame is `length u32 LE ‖ kind u8 ‖
//! body`, where the length counts the body. Numbers are little-endian and of fixed width. The decoder checks a length
//! against the kind's own bound before it reads the body, reads no more than that, and never panics, whatever the bytes.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::memory;
use super::memory::keys::ScanNonce;
use super::memory::size::SCANS_RANGE;
use super::work::{Challenge, Position, ROUNDS_RANGE, Root, Work};
use crate::ids::{DeviceId, Hash32, Hotkey};

/// The hello of the side that runs the prover.
pub const HOST_HELLO: [u8; 8] = *b"cproofH\x01";
/// The hello of the prover.
pub const PROVER_HELLO: [u8; 8] = *b"cproofP\x01";
/// Most positions in one request to open.
pub const MAX_POSITIONS: usize = 4096;
/// Longest text of an error, in bytes; longer ones are cut.
pub const MAX_ERROR_TEXT: usize = 1024;
/// Bytes before a body.
pub const HEADER: usize = 5;
/// Longest body of all: openings of [`MAX_POSITIONS`] in the largest tree.
pub const MAX_BODY: usize = MAX_POSITIONS * (4096 + 32 * 24);
/// Longest body of openings of memory: of [`MAX_POSITIONS`] in the largest tree.
const MAX_BLOCK_OPENINGS: usize = MAX_POSITIONS * (48 + 32 * 30);
const COMMIT_BODY: usize = 32 + 8 + 32 + 16 + 12 + 4;
const FILL_BODY: usize = 32 + 8 + 32 + 16 + 8 + 8 + 4;

/// What a prover's error is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The request cannot be served: positions outside the work, nothing committed yet, or no such device here.
    Request,
    /// Memory could not be had.
    OutOfMemory,
    /// The prover failed.
    Internal,
}

/// A message between a node and its prover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// To the prover: compute this.
    Commit {
        /// What to compute.
        challenge: Challenge,
        /// Threads to use.
        threads: u32,
    },
    /// To the prover: open these positions of the commitment.
    Open {
        /// Where, at most [`MAX_POSITIONS`].
        positions: Vec<Position>,
    },
    /// To the prover: nothing more to do.
    Bye,
    /// To the prover: fill this memory. It takes the place of a commitment, as a commitment takes that of memory.
    Fill {
        /// What to fill.
        challenge: memory::Challenge,
        /// Threads to use.
        threads: u32,
    },
    /// To the prover: do all scans of the memory.
    Scan {
        /// The first scan's nonce.
        nonce_0: ScanNonce,
    },
    /// To the prover: open these blocks of the last scans.
    OpenBlocks {
        /// Which, at most [`MAX_POSITIONS`].
        positions: Vec<memory::Position>,
    },
    /// From the prover: one root for each round.
    Roots {
        /// The roots, in order.
        roots: Vec<Root>,
    },
    /// From the prover: `tile ‖ path` for each position.
    Openings {
        /// The bytes, to be judged by the verifier.
        bytes: Vec<u8>,
    },
    /// From the prover: the memory is filled, and the scans can begin.
    Filled,
    /// From the prover: one root for each scan.
    ScanRoots {
        /// The roots, in order.
        roots: Vec<Root>,
    },
    /// From the prover: `three other digests ‖ path` for each block asked for.
    BlockOpenings {
        /// The bytes, to be judged by the verifier.
        bytes: Vec<u8>,
    },
    /// From the prover: why there is no answer.
    Error {
        /// What it is about.
        kind: ErrorKind,
        /// In words.
        text: String,
    },
}

/// Why bytes are no frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The other side did not say hello as expected.
    #[error("expected the hello of {expected}, found {found}")]
    Hello {
        /// Which side was expected.
        expected: &'static str,
        /// The bytes, in hex.
        found: String,
    },
    /// A length above the bound.
    #[error("{kind} frame of {length} bytes, at most {max} are allowed")]
    TooLong {
        /// The frame's kind.
        kind: &'static str,
        /// The length it announces.
        length: usize,
        /// The bound.
        max: usize,
    },
    /// A kind that does not exist.
    #[error("no frame has kind {0}")]
    UnknownKind(u8),
    /// A body that does not fit its kind.
    #[error("{kind} frame: {what}")]
    Body {
        /// The frame's kind.
        kind: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The stream ended inside a hello or a frame.
    #[error("the stream ended inside a frame")]
    Ended,
    /// The stream failed.
    #[error("the stream failed")]
    Io(#[source] std::io::Error),
}

/// The kind of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind(u8);

impl Kind {
    const COMMIT: Kind = Kind(1);
    const OPEN: Kind = Kind(2);
    const BYE: Kind = Kind(3);
    const FILL: Kind = Kind(12);
    const SCAN: Kind = Kind(13);
    const OPEN_BLOCKS: Kind = Kind(14);
    const ROOTS: Kind = Kind(17);
    const OPENINGS: Kind = Kind(18);
    const ERROR: Kind = Kind(19);
    const FILLED: Kind = Kind(28);
    const SCAN_ROOTS: Kind = Kind(29);
    const BLOCK_OPENINGS: Kind = Kind(30);

    /// Name and longest body of the kind, if there is such a kind.
    fn known(self) -> Option<(&'static str, usize)> {
        Some(match self {
            Kind::COMMIT => ("commit", COMMIT_BODY),
            Kind::OPEN => ("open", 12 * MAX_POSITIONS),
            Kind::BYE => ("bye", 0),
            Kind::ROOTS => ("roots", 32 * ROUNDS_RANGE.1 as usize),
            Kind::OPENINGS => ("openings", MAX_BODY),
            Kind::ERROR => ("error", 1 + MAX_ERROR_TEXT),
            Kind::FILL => ("fill", FILL_BODY),
            Kind::SCAN => ("scan", 32),
            Kind::OPEN_BLOCKS => ("open blocks", 8 * MAX_POSITIONS),
            Kind::FILLED => ("filled", 0),
            Kind::SCAN_ROOTS => ("scan roots", 32 * SCANS_RANGE.1 as usize),
            Kind::BLOCK_OPENINGS => ("block openings", MAX_BLOCK_OPENINGS),
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        self.known().map_or("unknown", |(name, _)| name)
    }
}

impl Frame {
    /// The frame's kind, for messages about it.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    fn kind(&self) -> Kind {
        match self {
            Frame::Commit { .. } => Kind::COMMIT,
            Frame::Open { .. } => Kind::OPEN,
            Frame::Bye => Kind::BYE,
            Frame::Roots { .. } => Kind::ROOTS,
            Frame::Openings { .. } => Kind::OPENINGS,
            Frame::Error { .. } => Kind::ERROR,
            Frame::Fill { .. } => Kind::FILL,
            Frame::Scan { .. } => Kind::SCAN,
            Frame::OpenBlocks { .. } => Kind::OPEN_BLOCKS,
            Frame::Filled => Kind::FILLED,
            Frame::ScanRoots { .. } => Kind::SCAN_ROOTS,
            Frame::BlockOpenings { .. } => Kind::BLOCK_OPENINGS,
        }
    }

    /// Header and body.
    ///
    /// # Errors
    /// [`FrameError::TooLong`] if the content exceeds the kind's bound: the other side would refuse it.
    pub fn encode(&self) -> Result<Vec<u8>, FrameError> {
        let mut out = vec![0u8; HEADER];
        match self {
            Frame::Commit { challenge, threads } => {
                out.extend_from_slice(&challenge.nonce);
                out.extend_from_slice(&challenge.epoch.to_le_bytes());
                out.extend_from_slice(&challenge.hotkey.0);
                out.extend_from_slice(&challenge.device.0);
                put(&mut out, [challenge.work.n, challenge.work.k, challenge.work.rounds, *threads]);
            }
            Frame::Fill { challenge, threads } => {
                let size = &challenge.size;
                out.extend_from_slice(&challenge.nonce);
                out.extend_from_slice(&challenge.epoch.to_le_bytes());
                out.extend_from_slice(&challenge.hotkey.0);
                out.extend_from_slice(&challenge.device.0);
                out.extend_from_slice(&size.blocks().to_le_bytes());
                put(&mut out, [size.iterations(), size.scans(), *threads]);
            }
            Frame::Scan { nonce_0 } => out.extend_from_slice(&nonce_0.0),
            Frame::Open { positions } => put(&mut out, positions.iter().flat_map(|p| [p.round, p.row, p.col])),
            Frame::OpenBlocks { positions } => put(&mut out, positions.iter().flat_map(|p| [p.scan, p.block])),
            Frame::Bye | Frame::Filled => {}
            Frame::Roots { roots } | Frame::ScanRoots { roots } => {
                roots.iter().for_each(|root| out.extend_from_slice(&root.0));
            }
            Frame::Openings { bytes } | Frame::BlockOpenings { bytes } => out.extend_from_slice(bytes),
            Frame::Error { kind, text } => {
                out.push(*kind as u8);
                let end = (0..=text.len().min(MAX_ERROR_TEXT)).rev().find(|&i| text.is_char_boundary(i)).unwrap_or(0);
                out.extend_from_slice(&text.as_bytes()[..end]);
            }
        }
        let kind = self.kind();
        let length = out.len() - HEADER;
        let max = kind.known().map_or(0, |(_, max)| max);
        if length > max {
            return Err(FrameError::TooLong { kind: kind.name(), length, max });
        }
        // Every bound is far below 2³².
        out[..4].copy_from_slice(&(length as u32).to_le_bytes());
        out[4] = kind.0;
        Ok(out)
    }
}

fn put(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = u32>) {
    numbers.into_iter().for_each(|number| out.extend_from_slice(&number.to_le_bytes()));
}

/// Reads a header: the kind and the length of the body, within the kind's bound and `max_body`.
///
/// # Errors
/// [`FrameError::UnknownKind`], [`FrameError::TooLong`].
pub fn decode_header(header: [u8; HEADER], max_body: usize) -> Result<(Kind, usize), FrameError> {
    let length = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
    let kind = Kind(header[4]);
    let (name, bound) = kind.known().ok_or(FrameError::UnknownKind(kind.0))?;
    let max = bound.min(max_body);
    if length > max {
        return Err(FrameError::TooLong { kind: name, length, max });
    }
    Ok((kind, length))
}

/// Reads the body of a frame of this kind.
///
/// # Errors
/// [`FrameError::Body`] if it does not fit the kind, a [`Work`] or [`memory::Size`] out of range included.
pub fn decode_body(kind: Kind, body: &[u8]) -> Result<Frame, FrameError> {
    let wrong = |what: String| FrameError::Body { kind: kind.name(), what };
    let whole = |unit: usize| {
        let bytes = body.len();
        if bytes.is_multiple_of(unit) { Ok(()) } else { Err(wrong(format!("{bytes} bytes are no multiple of {unit}"))) }
    };
    match kind {
        Kind::COMMIT => decode_commit(body).map_err(wrong),
        Kind::FILL => decode_fill(body).map_err(wrong),
        Kind::SCAN => {
            let nonce = body.try_into().map_err(|_| wrong(format!("{} bytes, expected 32", body.len())))?;
            Ok(Frame::Scan { nonce_0: ScanNonce(nonce) })
        }
        Kind::OPEN => {
            whole(12)?;
            let position = |b: &[u8]| Position { round: number(b, 0), row: number(b, 1), col: number(b, 2) };
            Ok(Frame::Open { positions: body.chunks_exact(12).map(position).collect() })
        }
        Kind::OPEN_BLOCKS => {
            whole(8)?;
            let position = |b: &[u8]| memory::Position { scan: number(b, 0), block: number(b, 1) };
            Ok(Frame::OpenBlocks { positions: body.chunks_exact(8).map(position).collect() })
        }
        Kind::BYE => Ok(Frame::Bye),
        Kind::FILLED => Ok(Frame::Filled),
        Kind::ROOTS | Kind::SCAN_ROOTS => {
            whole(32)?;
            let roots = body.as_chunks::<32>().0.iter().map(|root| Hash32(*root)).collect();
            Ok(if kind == Kind::ROOTS { Frame::Roots { roots } } else { Frame::ScanRoots { roots } })
        }
        Kind::OPENINGS => Ok(Frame::Openings { bytes: body.to_vec() }),
        Kind::BLOCK_OPENINGS => Ok(Frame::BlockOpenings { bytes: body.to_vec() }),
        Kind::ERROR => {
            let (first, text) = body.split_first().ok_or_else(|| wrong("it is empty".into()))?;
            let kind = [ErrorKind::Request, ErrorKind::OutOfMemory, ErrorKind::Internal]
                .into_iter()
                .find(|kind| *kind as u8 == *first)
                .ok_or_else(|| wrong(format!("no error has kind {first}")))?;
            Ok(Frame::Error { kind, text: String::from_utf8_lossy(text).into_owned() })
        }
        Kind(other) => Err(FrameError::UnknownKind(other)),
    }
}

/// Number `i` of these bytes, which are as long as it takes.
fn number(bytes: &[u8], i: usize) -> u32 {
    u32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
}

/// The next bytes of a body whose length is right.
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], String> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or("it ends early")?;
    *rest = tail;
    Ok(*head)
}

fn decode_fill(body: &[u8]) -> Result<Frame, String> {
    if body.len() != FILL_BODY {
        return Err(format!("{} bytes, expected {FILL_BODY}", body.len()));
    }
    let mut rest = body;
    let nonce = take::<32>(&mut rest)?;
    let epoch = u64::from_le_bytes(take(&mut rest)?);
    let hotkey = Hotkey(take(&mut rest)?);
    let device = DeviceId(take(&mut rest)?);
    let blocks = u64::from_le_bytes(take(&mut rest)?);
    let mut number = || take::<4>(&mut rest).map(u32::from_le_bytes);
    let (iterations, scans, threads) = (number()?, number()?, number()?);
    let size = memory::Size::new(blocks, iterations, scans).map_err(|e| e.to_string())?;
    Ok(Frame::Fill { challenge: memory::Challenge { nonce, epoch, hotkey, device, size }, threads })
}

fn decode_commit(body: &[u8]) -> Result<Frame, String> {
    if body.len() != COMMIT_BODY {
        return Err(format!("{} bytes, expected {COMMIT_BODY}", body.len()));
    }
    let mut rest = body;
    let nonce = take::<32>(&mut rest)?;
    let epoch = u64::from_le_bytes(take(&mut rest)?);
    let hotkey = Hotkey(take(&mut rest)?);
    let device = DeviceId(take(&mut rest)?);
    let mut number = || take::<4>(&mut rest).map(u32::from_le_bytes);
    let (n, k, rounds, threads) = (number()?, number()?, number()?, number()?);
    let work = Work::new(n, k, rounds).map_err(|e| e.to_string())?;
    Ok(Frame::Commit { challenge: Challenge { nonce, epoch, hotkey, device, work }, threads })
}

/// Decodes the first frame of `bytes`: the frame and how many bytes it took, or `None` if it is not complete yet.
///
/// # Errors
/// As soon as the bytes cannot become a frame.
pub fn decode(bytes: &[u8], max_body: usize) -> Result<Option<(Frame, usize)>, FrameError> {
    let Some(header) = bytes.first_chunk::<HEADER>() else { return Ok(None) };
    let (kind, length) = decode_header(*header, max_body)?;
    let Some(body) = bytes.get(HEADER..HEADER + length) else { return Ok(None) };
    Ok(Some((decode_body(kind, body)?, HEADER + length)))
}

/// Writes a frame and flushes.
///
/// # Errors
/// [`FrameError::TooLong`], [`FrameError::Io`].
pub async fn write_frame(to: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> Result<(), FrameError> {
    to.write_all(&frame.encode()?).await.map_err(FrameError::Io)?;
    to.flush().await.map_err(FrameError::Io)
}

/// Reads one frame whose body has at most `max_body` bytes; `None` if the stream ends before a frame begins.
///
/// Memory grows with the bytes that arrive, not with the length announced. Not safe to cancel: a dropped read loses
/// the bytes it had.
///
/// # Errors
/// Any [`FrameError`] but that about a hello.
pub async fn read_frame(from: &mut (impl AsyncRead + Unpin), max_body: usize) -> Result<Option<Frame>, FrameError> {
    let mut header = [0u8; HEADER];
    let mut have = 0;
    while have < HEADER {
        match from.read(&mut header[have..]).await.map_err(FrameError::Io)? {
            0 if have == 0 => return Ok(None),
            0 => return Err(FrameError::Ended),
            more => have += more,
        }
    }
    let (kind, length) = decode_header(header, max_body)?;
    let mut body = Vec::new();
    from.take(length as u64).read_to_end(&mut body).await.map_err(FrameError::Io)?;
    if body.len() < length {
        return Err(FrameError::Ended);
    }
    decode_body(kind, &body).map(Some)
}

/// Reads the other side's hello.
///
/// # Errors
/// [`FrameError::Hello`] if it is another one, [`FrameError::Ended`], [`FrameError::Io`].
pub async fn read_hello(from: &mut (impl AsyncRead + Unpin), expected: [u8; 8]) -> Result<(), FrameError> {
    let mut hello = [0u8; 8];
    match from.read_exact(&mut hello).await {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Err(FrameError::Ended),
        Err(error) => return Err(FrameError::Io(error)),
    }
    if hello == expected {
        return Ok(());
    }
    let expected = if expected == HOST_HELLO { "a host, version 1" } else { "a prover, version 1" };
    Err(FrameError::Hello { expected, found: hex::encode(hello) })
}

#[cfg(test)]
mod tests;
