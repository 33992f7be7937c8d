//! Whether a program needs anything of the system that it runs on. Pure.

/// What a file is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Program {
    /// It asks for no loader: it runs in any image.
    Static,
    /// It asks for a dynamic linker, which an image may lack.
    Dynamic,
    /// No 64-bit program of Linux.
    None,
}

/// Reads the header and the table of segments.
pub(super) fn program(bytes: &[u8]) -> Program {
    match interpreter(bytes) {
        Some(true) => Program::Dynamic,
        Some(false) => Program::Static,
        None => Program::None,
    }
}

fn interpreter(bytes: &[u8]) -> Option<bool> {
    // 64 bits, little endian; PT_INTERP is 3.
    bytes.strip_prefix(b"\x7fELF\x02\x01")?;
    let number = |at: usize, width: usize| -> Option<usize> {
        let part = bytes.get(at..at.checked_add(width)?)?;
        part.iter().rev().try_fold(0usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))
    };
    let (table, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
    for n in 0..count {
        if number(table.checked_add(n.checked_mul(size)?)?, 4)? == 3 {
            return Some(true);
        }
    }
    Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_with_a_loader_is_told_from_one_without() {
        let own = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        assert_eq!(program(&own), Program::Dynamic, "tests are linked with the system's libc");
        let mut header = b"\x7fELF\x02\x01".to_vec();
        header.resize(64, 0);
        header[32] = 64;
        header[54] = 56;
        header[56] = 1;
        let with = |kind: u8| [header.clone(), vec![kind; 1], vec![0; 55]].concat();
        assert_eq!(program(&with(1)), Program::Static);
        assert_eq!(program(&with(3)), Program::Dynamic);
        assert_eq!(program(&header), Program::None, "a table that is cut off");
        assert_eq!(program(b"#!/bin/sh"), Program::None);
        assert_eq!(program(&[]), Program::None);
    }
}
