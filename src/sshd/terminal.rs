//! The terminal of a session, and how it is to behave.

use std::path::PathBuf;

use pty_process::{Pts, Pty, Size};
use russh::Pty as Mode;
use rustix::termios::{
    ControlModes, InputModes, LocalModes, OptionalActions, OutputModes, SpecialCodeIndex, Termios, tcgetattr, tcsetattr,
};

/// A terminal that no program uses yet.
pub(crate) struct Terminal {
    /// This server's end.
    pub(crate) pty: Pty,
    /// The program's end.
    pub(crate) pts: Pts,
    /// The path of the program's end.
    pub(crate) path: PathBuf,
    /// The kind of the client's terminal, for `TERM`.
    pub(crate) kind: String,
}

impl Terminal {
    /// Opens one.
    ///
    /// # Errors
    ///
    /// There is no `/dev/ptmx` or `/dev/pts` in the container, or no terminal is left.
    pub(crate) fn open(kind: &str, size: Size, modes: &[(Mode, u32)]) -> Result<Self, pty_process::Error> {
        let (pty, pts) = pty_process::open()?;
        pty.resize(size)?;
        let mut settings = tcgetattr(&pts)?;
        set(&mut settings, modes);
        tcsetattr(&pts, OptionalActions::Now, &settings)?;
        let path = rustix::pty::ptsname(&pty, Vec::new())?;
        let path = PathBuf::from(path.to_string_lossy().into_owned());
        let is_kind = |c: char| c.is_ascii_alphanumeric() || "-_.+".contains(c);
        let kind = if !kind.is_empty() && kind.len() <= 64 && kind.chars().all(is_kind) { kind } else { "dumb" };
        Ok(Self { pty, pts, path, kind: kind.to_owned() })
    }
}

/// A client's numbers as a size; what is out of range is none.
pub(crate) fn size(columns: u32, rows: u32, width: u32, height: u32) -> Size {
    let of = |number: u32| u16::try_from(number).unwrap_or(0);
    Size::new_with_pixel(of(rows), of(columns), of(width), of(height))
}

/// Sets what the client asks for (RFC 4254, section 8), as far as Linux has it.
pub(crate) fn set(settings: &mut Termios, modes: &[(Mode, u32)]) {
    for (mode, value) in modes {
        let on = *value != 0;
        if let Some(index) = code(*mode) {
            // 255: no such character.
            settings.special_codes[index] = match u8::try_from(*value) {
                Ok(255) | Err(_) => 0,
                Ok(character) => character,
            };
        } else if let Some(flag) = input(*mode) {
            settings.input_modes.set(flag, on);
        } else if let Some(flag) = local(*mode) {
            settings.local_modes.set(flag, on);
        } else if let Some(flag) = output(*mode) {
            settings.output_modes.set(flag, on);
        } else if matches!(mode, Mode::PARENB) {
            settings.control_modes.set(ControlModes::PARENB, on);
        } else if matches!(mode, Mode::PARODD) {
            settings.control_modes.set(ControlModes::PARODD, on);
        }
        // Seven or eight bits and speeds mean nothing on a terminal without a line.
    }
}

fn code(mode: Mode) -> Option<SpecialCodeIndex> {
    Some(match mode {
        Mode::VINTR => SpecialCodeIndex::VINTR,
        Mode::VQUIT => SpecialCodeIndex::VQUIT,
        Mode::VERASE => SpecialCodeIndex::VERASE,
        Mode::VKILL => SpecialCodeIndex::VKILL,
        Mode::VEOF => SpecialCodeIndex::VEOF,
        Mode::VEOL => SpecialCodeIndex::VEOL,
        Mode::VEOL2 => SpecialCodeIndex::VEOL2,
        Mode::VSTART => SpecialCodeIndex::VSTART,
        Mode::VSTOP => SpecialCodeIndex::VSTOP,
        Mode::VSUSP => SpecialCodeIndex::VSUSP,
        Mode::VREPRINT => SpecialCodeIndex::VREPRINT,
        Mode::VWERASE => SpecialCodeIndex::VWERASE,
        Mode::VLNEXT => SpecialCodeIndex::VLNEXT,
        Mode::VDISCARD => SpecialCodeIndex::VDISCARD,
        _ => return None,
    })
}

fn input(mode: Mode) -> Option<InputModes> {
    Some(match mode {
        Mode::IGNPAR => InputModes::IGNPAR,
        Mode::PARMRK => InputModes::PARMRK,
        Mode::INPCK => InputModes::INPCK,
        Mode::ISTRIP => InputModes::ISTRIP,
        Mode::INLCR => InputModes::INLCR,
        Mode::IGNCR => InputModes::IGNCR,
        Mode::ICRNL => InputModes::ICRNL,
        Mode::IUCLC => InputModes::IUCLC,
        Mode::IXON => InputModes::IXON,
        Mode::IXANY => InputModes::IXANY,
        Mode::IXOFF => InputModes::IXOFF,
        Mode::IMAXBEL => InputModes::IMAXBEL,
        Mode::IUTF8 => InputModes::IUTF8,
        _ => return None,
    })
}

fn local(mode: Mode) -> Option<LocalModes> {
    Some(match mode {
        Mode::ISIG => LocalModes::ISIG,
        Mode::ICANON => LocalModes::ICANON,
        Mode::XCASE => LocalModes::XCASE,
        Mode::ECHO => LocalModes::ECHO,
        Mode::ECHOE => LocalModes::ECHOE,
        Mode::ECHOK => LocalModes::ECHOK,
        Mode::ECHONL => LocalModes::ECHONL,
        Mode::NOFLSH => LocalModes::NOFLSH,
        Mode::TOSTOP => LocalModes::TOSTOP,
        Mode::IEXTEN => LocalModes::IEXTEN,
        Mode::ECHOCTL => LocalModes::ECHOCTL,
        Mode::ECHOKE => LocalModes::ECHOKE,
        Mode::PENDIN => LocalModes::PENDIN,
        _ => return None,
    })
}

fn output(mode: Mode) -> Option<OutputModes> {
    Some(match mode {
        Mode::OPOST => OutputModes::OPOST,
        Mode::OLCUC => OutputModes::OLCUC,
        Mode::ONLCR => OutputModes::ONLCR,
        Mode::OCRNL => OutputModes::OCRNL,
        Mode::ONOCR => OutputModes::ONOCR,
        Mode::ONLRET => OutputModes::ONLRET,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_terminal_behaves_as_the_client_asks() {
        let modes = [
            (Mode::ECHO, 0),
            (Mode::VERASE, 8),
            (Mode::VEOL, 255),
            (Mode::IUTF8, 1),
            (Mode::ONLCR, 0),
            (Mode::TTY_OP_ISPEED, 9600),
        ];
        let terminal = Terminal::open("xterm-256color", size(132, 43, 0, 0), &modes).unwrap();
        let settings = tcgetattr(&terminal.pts).unwrap();
        assert!(!settings.local_modes.contains(LocalModes::ECHO) && settings.local_modes.contains(LocalModes::ICANON));
        assert!(
            settings.input_modes.contains(InputModes::IUTF8) && !settings.output_modes.contains(OutputModes::ONLCR)
        );
        assert_eq!(settings.special_codes[SpecialCodeIndex::VERASE], 8);
        assert_eq!(settings.special_codes[SpecialCodeIndex::VEOL], 0);
        let window = rustix::termios::tcgetwinsize(&terminal.pts).unwrap();
        assert_eq!((window.ws_col, window.ws_row), (132, 43));
        assert!(terminal.path.starts_with("/dev/pts") && terminal.kind == "xterm-256color");
    }

    #[tokio::test]
    async fn a_kind_that_is_no_word_is_a_dumb_terminal() {
        for kind in ["", "a b", "x\0y", "../../x", &"x".repeat(65)] {
            assert_eq!(Terminal::open(kind, size(80, 24, 0, 0), &[]).unwrap().kind, "dumb", "{kind}");
        }
    }
}
