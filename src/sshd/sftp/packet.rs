//! Packets of SFTP version 3 (draft-ietf-secsh-filexfer-02), as bytes: names of files need not be UTF-8.

use std::collections::VecDeque;

/// The largest packet that is taken, in bytes, without its length: as OpenSSH's.
pub(crate) const LARGEST: usize = 256 << 10;
/// The largest piece of a file in a packet, in bytes.
pub(crate) const LARGEST_DATA: u32 = 255 << 10;

/// Kinds of packets.
pub(crate) const INIT: u8 = 1;
pub(crate) const VERSION: u8 = 2;
pub(crate) const OPEN: u8 = 3;
pub(crate) const CLOSE: u8 = 4;
pub(crate) const READ: u8 = 5;
pub(crate) const WRITE: u8 = 6;
pub(crate) const LSTAT: u8 = 7;
pub(crate) const FSTAT: u8 = 8;
pub(crate) const SETSTAT: u8 = 9;
pub(crate) const FSETSTAT: u8 = 10;
pub(crate) const OPENDIR: u8 = 11;
pub(crate) const READDIR: u8 = 12;
pub(crate) const REMOVE: u8 = 13;
pub(crate) const MKDIR: u8 = 14;
pub(crate) const RMDIR: u8 = 15;
pub(crate) const REALPATH: u8 = 16;
pub(crate) const STAT: u8 = 17;
pub(crate) const RENAME: u8 = 18;
pub(crate) const READLINK: u8 = 19;
pub(crate) const SYMLINK: u8 = 20;
pub(crate) const EXTENDED: u8 = 200;
pub(crate) const STATUS: u8 = 101;
pub(crate) const HANDLE: u8 = 102;
pub(crate) const DATA: u8 = 103;
pub(crate) const NAME: u8 = 104;
pub(crate) const ATTRS: u8 = 105;
pub(crate) const EXTENDED_REPLY: u8 = 201;

/// What a status says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Code {
    /// Done.
    Ok = 0,
    /// Nothing more to read.
    Eof = 1,
    /// No such file.
    NoSuchFile = 2,
    /// Not allowed.
    PermissionDenied = 3,
    /// Something else.
    Failure = 4,
    /// The packet makes no sense.
    BadMessage = 5,
    /// Unknown here.
    Unsupported = 8,
}

/// A packet says something else than its kind does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a packet that makes no sense")]
pub(crate) struct Malformed;

/// Reads the fields of a packet.
#[derive(Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed)?;
        self.0 = rest;
        Ok(taken)
    }

    /// A number of one byte.
    pub(crate) fn byte(&mut self) -> Result<u8, Malformed> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// A number of four bytes.
    pub(crate) fn number(&mut self) -> Result<u32, Malformed> {
        self.take(4)?.try_into().map(u32::from_be_bytes).map_err(|_| Malformed)
    }

    /// A number of eight bytes.
    pub(crate) fn long(&mut self) -> Result<u64, Malformed> {
        self.take(8)?.try_into().map(u64::from_be_bytes).map_err(|_| Malformed)
    }

    /// Bytes with their length.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()?;
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }
}

/// A packet that is being made: its length first, which [`Packet::finish`] writes.
#[derive(Debug)]
pub(crate) struct Packet(Vec<u8>);

impl Packet {
    /// A packet of this kind, as an answer to the request of this number.
    pub(crate) fn new(kind: u8, request: u32) -> Self {
        let mut packet = Self(vec![0, 0, 0, 0, kind]);
        packet.number(request);
        packet
    }

    /// A number of four bytes.
    pub(crate) fn number(&mut self, number: u32) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// A number of eight bytes.
    pub(crate) fn long(&mut self, number: u64) -> &mut Self {
        self.0.extend(number.to_be_bytes());
        self
    }

    /// Bytes with their length.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.number(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        self.0.extend(bytes);
        self
    }

    /// The packet's bytes.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len() - 4).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_be_bytes());
        self.0
    }
}

/// Cuts a stream of bytes into packets.
#[derive(Debug, Default)]
pub(crate) struct Cutter(VecDeque<u8>);

impl Cutter {
    /// Adds bytes to the end. At most a packet and a chunk are held if [`Cutter::next`] is called until it has none.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.0.extend(bytes);
    }

    /// The next packet without its length, if it is there.
    ///
    /// # Errors
    ///
    /// It is larger than [`LARGEST`], or empty: the stream is none of packets.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, Malformed> {
        if self.0.len() < 4 {
            return Ok(None);
        }
        let length = [0, 1, 2, 3].into_iter().fold(0, |length, index| length << 8 | usize::from(self.0[index]));
        if length == 0 || length > LARGEST {
            return Err(Malformed);
        }
        if self.0.len() < 4 + length {
            return Ok(None);
        }
        self.0.drain(..4);
        Ok(Some(self.0.drain(..length).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_cut_into_its_packets() {
        let packets = [vec![INIT, 0, 0, 0, 3], vec![CLOSE, 1, 2, 3], vec![7; LARGEST]];
        let stream: Vec<u8> =
            packets.iter().flat_map(|p| [&u32::try_from(p.len()).unwrap().to_be_bytes()[..], p].concat()).collect();
        for size in [1, 3, 1000, stream.len()] {
            let (mut cutter, mut cut) = (Cutter::default(), Vec::new());
            for chunk in stream.chunks(size) {
                cutter.push(chunk);
                while let Some(packet) = cutter.next().unwrap() {
                    cut.push(packet);
                }
            }
            assert_eq!(cut, packets);
        }
    }

    #[test]
    fn a_stream_of_something_else_is_refused() {
        for bytes in [&b"GET / HTTP/1.1"[..], &[0, 0, 0, 0], &[0, 4, 0, 1], &[255; 4]] {
            let mut cutter = Cutter::default();
            cutter.push(bytes);
            assert_eq!(cutter.next(), Err(Malformed), "{bytes:?}");
        }
    }

    #[test]
    fn fields_are_read_as_they_are_written_and_never_beyond_the_end() {
        let mut packet = Packet::new(NAME, 7);
        packet.number(1).long(1 << 40).bytes(b"a\xffb").bytes(b"");
        let bytes = packet.finish();
        let mut fields = Fields(&bytes);
        assert_eq!(fields.number(), Ok(u32::try_from(bytes.len()).unwrap() - 4));
        assert_eq!((fields.byte(), fields.number(), fields.number()), (Ok(NAME), Ok(7), Ok(1)));
        assert_eq!((fields.long(), fields.bytes(), fields.bytes()), (Ok(1 << 40), Ok(&b"a\xffb"[..]), Ok(&b""[..])));
        assert_eq!((fields.byte(), fields.number(), fields.bytes()), (Err(Malformed), Err(Malformed), Err(Malformed)));
        assert_eq!(Fields(&[0, 0, 0, 9, 1]).bytes(), Err(Malformed));
    }
}
