//! Asking the person at the terminal for a password, without showing it.
//!
//! The terminal hands over each key as it is pressed and neither shows them nor turns Ctrl-C into a signal, so that it is
//! given back as it was whatever is pressed. A signal from elsewhere (SIGTERM, SIGHUP) ends the program at once and leaves
//! the terminal without echo; shells give it back, otherwise `stty sane` does. The wait is as long as the person takes:
//! nothing runs yet, and Ctrl-C ends it.

use std::io::{self, IsTerminal as _, Write as _};

use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use secrecy::zeroize::Zeroizing;

use super::password::MAX_PASSWORD_BYTES;

/// Whether there is somebody to ask.
pub(super) fn is_there() -> bool {
    io::stdin().is_terminal()
}

/// Asks on standard error and reads one line from standard input, which is a terminal.
pub(super) fn ask(prompt: &str) -> io::Result<Zeroizing<Vec<u8>>> {
    let _quiet = Quiet::new()?;
    let mut told = io::stderr().lock();
    write!(told, "{prompt}")?;
    told.flush()?;
    let mut line = Line::default();
    let mut pressed = Zeroizing::new([0u8; 1]);
    let answer = loop {
        let read = match rustix::io::read(io::stdin(), &mut *pressed) {
            Ok(read) => read,
            Err(rustix::io::Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        };
        match if read == 0 { Step::GivenUp } else { line.press(pressed[0]) } {
            Step::More => {}
            Step::Done => break Ok(line.0),
            Step::GivenUp => break Err(io::Error::from(io::ErrorKind::Interrupted)),
        }
    };
    writeln!(told)?;
    answer
}

/// The terminal without echo, until dropped.
struct Quiet(Termios);

impl Quiet {
    fn new() -> io::Result<Self> {
        let before = termios::tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
        // One key at a time, and wait for it.
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        termios::tcsetattr(io::stdin(), OptionalActions::Now, &quiet)?;
        Ok(Quiet(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = termios::tcsetattr(io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// The line so far.
struct Line(Zeroizing<Vec<u8>>);

impl Default for Line {
    fn default() -> Self {
        // Room for the longest, so that no copy is left behind.
        Line(Zeroizing::new(Vec::with_capacity(MAX_PASSWORD_BYTES)))
    }
}

/// What a key does.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    More,
    Done,
    GivenUp,
}

impl Line {
    fn press(&mut self, key: u8) -> Step {
        const CTRL_C: u8 = 0x03;
        const CTRL_D: u8 = 0x04;
        const CTRL_U: u8 = 0x15;
        match key {
            b'\r' | b'\n' => return Step::Done,
            CTRL_C => return Step::GivenUp,
            CTRL_D if self.0.is_empty() => return Step::GivenUp,
            CTRL_U => self.0.clear(),
            0x08 | 0x7f => {
                // One character is one to four bytes; the later ones begin with the bits 10.
                while let Some(byte) = self.0.pop()
                    && byte & 0xc0 == 0x80
                {}
            }
            _ if self.0.len() < MAX_PASSWORD_BYTES => self.0.push(key),
            _ => {}
        }
        Step::More
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(keys: &[u8]) -> (Vec<u8>, Step) {
        let mut line = Line::default();
        for (at, &key) in keys.iter().enumerate() {
            let step = line.press(key);
            if step != Step::More {
                assert_eq!(at + 1, keys.len(), "nothing is read beyond the end");
                return (line.0.to_vec(), step);
            }
        }
        (line.0.to_vec(), Step::More)
    }

    #[test]
    fn a_line_is_edited_as_people_are_used_to() {
        assert_eq!(typed(b"secret\n"), (b"secret".to_vec(), Step::Done));
        assert_eq!(typed(b"secret\r"), (b"secret".to_vec(), Step::Done));
        assert_eq!(typed("ab€\x7f\x08c\n".as_bytes()), (b"ac".to_vec(), Step::Done));
        assert_eq!(typed(b"wrong\x15right\n"), (b"right".to_vec(), Step::Done));
        assert_eq!(typed(b"\x7f\x7fa\n"), (b"a".to_vec(), Step::Done));
        assert_eq!(typed(b"half\x03"), (b"half".to_vec(), Step::GivenUp));
        assert_eq!(typed(b"\x04"), (Vec::new(), Step::GivenUp));
        assert_eq!(typed(&[b'x'; MAX_PASSWORD_BYTES + 9]), (vec![b'x'; MAX_PASSWORD_BYTES], Step::More));
    }
}
