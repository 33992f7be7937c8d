//! WebSocket frames as bytes (RFC 6455), for those who stand between client and node or play one of them.

use std::ops::Range;

/// No message of a test is larger; a stream that claims so is not WebSocket.
const LARGEST: usize = 256 << 20;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opcode {
    Continuation,
    Text,
    Binary,
    Close,
    Ping,
    Pong,
    Unknown(u8),
}

impl Opcode {
    fn of(bits: u8) -> Self {
        match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            other => Opcode::Unknown(other),
        }
    }

    fn bits(self) -> u8 {
        match self {
            Opcode::Continuation => 0,
            Opcode::Text => 1,
            Opcode::Binary => 2,
            Opcode::Close => 8,
            Opcode::Ping => 9,
            Opcode::Pong => 10,
            Opcode::Unknown(other) => other,
        }
    }
}

/// A whole message (its frames joined, unmasked), or a control frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) opcode: Opcode,
    pub(crate) payload: Vec<u8>,
}

/// Takes bytes as they come, gives messages.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    pending: Vec<u8>,
    unfinished: Option<Message>,
}

impl Reader {
    /// Everything that is complete with these bytes. `Err` says why they are no WebSocket frames; then all is over.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<Vec<Message>, &'static str> {
        self.pending.extend_from_slice(bytes);
        let mut messages = Vec::new();
        let mut from = 0;
        while let Some(frame) = Frame::parse(&self.pending[from..])? {
            let mut payload = self.pending[from..][frame.payload.clone()].to_vec();
            if let Some(mask) = frame.mask {
                payload.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, key)| *byte ^= key);
            }
            from += frame.payload.end;
            messages.extend(self.join(frame.opcode, frame.last, payload)?);
        }
        self.pending.drain(..from);
        Ok(messages)
    }

    /// A control frame may stand between the frames of a message.
    fn join(&mut self, opcode: Opcode, last: bool, payload: Vec<u8>) -> Result<Option<Message>, &'static str> {
        let message = match (opcode, self.unfinished.take()) {
            (Opcode::Continuation, Some(mut begun)) => {
                begun.payload.extend(payload);
                begun
            }
            (Opcode::Continuation, None) => return Err("a continuation of nothing"),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err("a message within a message"),
            (Opcode::Text | Opcode::Binary, None) => Message { opcode, payload },
            (_, begun) => {
                self.unfinished = begun;
                return Ok(Some(Message { opcode, payload }));
            }
        };
        if last {
            return Ok(Some(message));
        }
        self.unfinished = Some(message);
        Ok(None)
    }
}

struct Frame {
    last: bool,
    opcode: Opcode,
    mask: Option<[u8; 4]>,
    payload: Range<usize>,
}

impl Frame {
    fn parse(bytes: &[u8]) -> Result<Option<Self>, &'static str> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let (length, at) = match (second & 0x7f, rest) {
            (126, [a, b, ..]) => (u64::from(u16::from_be_bytes([*a, *b])), 4),
            (127, [a, b, c, d, e, f, g, h, ..]) => (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), 10),
            (126 | 127, _) => return Ok(None),
            (length, _) => (u64::from(length), 2),
        };
        let length = usize::try_from(length).ok().filter(|n| *n <= LARGEST).ok_or("a frame of absurd length")?;
        let mask = second & 0x80 != 0;
        let start = if mask { at + 4 } else { at };
        if bytes.len() < start + length {
            return Ok(None);
        }
        let mask = if mask { bytes[at..start].try_into().ok() } else { None };
        let payload = start..start + length;
        Ok(Some(Frame { last: first & 0x80 != 0, opcode: Opcode::of(first & 0x0f), mask, payload }))
    }
}

/// A message in one frame as a server sends it, unmasked.
pub(crate) fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode.bits()];
    match payload.len() {
        n @ ..126 => bytes.push(n as u8),
        n @ ..65536 => {
            bytes.push(126);
            bytes.extend((n as u16).to_be_bytes());
        }
        n => {
            bytes.push(127);
            bytes.extend((n as u64).to_be_bytes());
        }
    }
    bytes.extend(payload);
    bytes
}

mod tests {
    use super::{Message, Opcode, Reader, frame};

    fn masked(opcode: Opcode, last: bool, payload: &[u8]) -> Vec<u8> {
        let mut bytes = frame(opcode, payload);
        let head = bytes.len() - payload.len();
        if !last {
            bytes[0] &= 0x7f;
        }
        bytes[1] |= 0x80;
        let key = [7, 11, 13, 17];
        for (i, byte) in bytes[head..].iter_mut().enumerate() {
            *byte ^= key[i % 4];
        }
        bytes.splice(head..head, key);
        bytes
    }

    fn text(payload: &[u8]) -> Message {
        Message { opcode: Opcode::Text, payload: payload.to_vec() }
    }

    #[test]
    fn messages_of_every_length_come_out_however_the_bytes_are_cut() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, 70_001] {
            let payload: Vec<u8> = (0..length).map(|i| i as u8).collect();
            for bytes in [frame(Opcode::Text, &payload), masked(Opcode::Text, true, &payload)] {
                let mut reader = Reader::default();
                let mut seen = Vec::new();
                for part in bytes.chunks(997.min(bytes.len() / 2 + 1)) {
                    seen.extend(reader.push(part).unwrap());
                }
                assert_eq!(seen, [text(&payload)], "{length}");
            }
        }
    }

    #[test]
    fn a_ping_between_the_parts_of_a_message_breaks_nothing() {
        let mut bytes = masked(Opcode::Text, false, b"one ");
        bytes.extend(masked(Opcode::Ping, true, b"?"));
        bytes.extend(masked(Opcode::Continuation, true, b"two"));
        let ping = Message { opcode: Opcode::Ping, payload: b"?".to_vec() };
        assert_eq!(Reader::default().push(&bytes).unwrap(), [ping, text(b"one two")]);
    }

    #[test]
    fn what_is_no_frame_is_an_error_and_not_memory() {
        assert!(Reader::default().push(&[0x81, 127, 255, 0, 0, 0, 0, 0, 0, 0]).is_err());
        assert!(Reader::default().push(&frame(Opcode::Continuation, b"x")).is_err());
    }
}
