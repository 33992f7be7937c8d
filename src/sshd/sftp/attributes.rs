//! Attributes of files: as SFTP says them, and as the kernel does.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;

use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::packet::{Fields, Malformed, Packet};

const SIZE: u32 = 1;
const OWNER: u32 = 2;
const PERMISSIONS: u32 = 4;
const TIMES: u32 = 8;
const EXTENDED: u32 = 1 << 31;

/// What a client wants to be changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// In bytes.
    pub(crate) size: Option<u64>,
    /// Numbers of user and group.
    pub(crate) owner: Option<(u32, u32)>,
    /// Permissions with the set-user-ID, set-group-ID and sticky bits.
    pub(crate) mode: Option<u32>,
    /// Access and modification, in seconds since 1970.
    pub(crate) times: Option<(u32, u32)>,
}

impl Wanted {
    /// Reads it from a packet.
    pub(crate) fn read(fields: &mut Fields<'_>) -> Result<Self, Malformed> {
        let flags = fields.number()?;
        let has = |flag| flags & flag != 0;
        let wanted = Self {
            size: has(SIZE).then(|| fields.long()).transpose()?,
            owner: has(OWNER).then(|| Ok((fields.number()?, fields.number()?))).transpose()?,
            mode: has(PERMISSIONS).then(|| fields.number()).transpose()?.map(|mode| mode & 0o7777),
            times: has(TIMES).then(|| Ok((fields.number()?, fields.number()?))).transpose()?,
        };
        if has(EXTENDED) {
            for _ in 0..fields.number()? {
                let (_name, _value) = (fields.bytes()?, fields.bytes()?);
            }
        }
        Ok(wanted)
    }

    /// The permissions for the kernel.
    pub(crate) fn mode(&self) -> Option<Mode> {
        self.mode.map(Mode::from_raw_mode)
    }

    /// User and group for the kernel. The number that means "leave it" there is left.
    pub(crate) fn owner(&self) -> Option<(Option<Uid>, Option<Gid>)> {
        let (user, group) = self.owner?;
        let is_number = |number: &u32| *number != u32::MAX;
        Some((Some(user).filter(is_number).map(Uid::from_raw), Some(group).filter(is_number).map(Gid::from_raw)))
    }

    /// The times for the kernel.
    pub(crate) fn times(&self) -> Option<Timestamps> {
        let at = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        self.times
            .map(|(access, modification)| Timestamps { last_access: at(access), last_modification: at(modification) })
    }
}

/// Adds a file's attributes to a packet.
pub(crate) fn write(packet: &mut Packet, file: &Metadata) {
    packet.number(SIZE | OWNER | PERMISSIONS | TIMES).long(file.size()).number(file.uid()).number(file.gid());
    packet.number(file.mode()).number(seconds(file.atime())).number(seconds(file.mtime()));
}

fn seconds(time: i64) -> u32 {
    u32::try_from(time.max(0)).unwrap_or(u32::MAX)
}

/// How to open a file, from SFTP's flags. Never waits for the other end of a FIFO.
///
/// # Errors
///
/// Neither reading nor writing is asked for.
pub(crate) fn open_flags(flags: u32) -> Result<OFlags, Malformed> {
    const READ: u32 = 1;
    const WRITE: u32 = 2;
    const APPEND: u32 = 4;
    const CREATE: u32 = 8;
    const TRUNCATE: u32 = 0x10;
    const EXCLUSIVE: u32 = 0x20;
    let mut all = match (flags & READ != 0, flags & WRITE != 0) {
        (true, true) => OFlags::RDWR,
        (true, false) => OFlags::RDONLY,
        (false, true) => OFlags::WRONLY,
        (false, false) => return Err(Malformed),
    };
    for (flag, means) in
        [(APPEND, OFlags::APPEND), (CREATE, OFlags::CREATE), (TRUNCATE, OFlags::TRUNC), (EXCLUSIVE, OFlags::EXCL)]
    {
        all.set(means, flags & flag != 0);
    }
    Ok(all | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK)
}

/// A line as `ls -l` prints it, with numbers for names and the time in UTC.
pub(crate) fn long_line(name: &[u8], file: &Metadata, now: i64) -> Vec<u8> {
    let (mode, links, owner, group, size) = (file.mode(), file.nlink(), file.uid(), file.gid(), file.size());
    let date = date(file.mtime(), now);
    let mut line = format!("{} {links:>3} {owner:<8} {group:<8} {size:>8} {date} ", permissions(mode)).into_bytes();
    line.extend(name);
    line
}

fn permissions(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, set, unset) in [(6, 0o4000, 's', 'S'), (3, 0o2000, 's', 'S'), (0, 0o1000, 't', 'T')] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => set,
            (true, false) => unset,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// Month, day and time; the year in place of the time if it is more than half a year away.
fn date(time: i64, now: i64) -> String {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, second) = (time.div_euclid(86_400), time.rem_euclid(86_400));
    // Days since 1 March of the year 0, in eras of 400 years.
    let shifted = days + 719_468;
    let (era, day) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, (month + 2) % 12);
    let year = year + era * 400 + i64::from(month < 2);
    let month = usize::try_from(month).ok().and_then(|month| MONTHS.get(month)).unwrap_or(&"");
    if (now - time).abs() < 182 * 86_400 {
        format!("{month} {day:>2} {:02}:{:02}", second / 3600, second % 3600 / 60)
    } else {
        format!("{month} {day:>2}  {year:>4}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_wants_is_read_and_what_is_unknown_is_passed_over() {
        let all = [
            &(SIZE | OWNER | PERMISSIONS | TIMES | EXTENDED).to_be_bytes()[..],
            &5u64.to_be_bytes(),
            &[0, 0, 0, 1, 255, 255, 255, 255],
            &0o100_4755u32.to_be_bytes(),
            &[0, 0, 0, 9, 0, 0, 0, 8],
            &[0, 0, 0, 1, 0, 0, 0, 1, b'x', 0, 0, 0, 0],
        ]
        .concat();
        let mut fields = Fields(&all);
        let wanted = Wanted::read(&mut fields).unwrap();
        assert!(fields.0.is_empty());
        let expected = Wanted { size: Some(5), owner: Some((1, u32::MAX)), mode: Some(0o4755), times: Some((9, 8)) };
        assert_eq!(wanted, expected);
        assert_eq!(wanted.owner(), Some((Some(Uid::from_raw(1)), None)));
        assert_eq!(Wanted::read(&mut Fields(&[0; 4])), Ok(Wanted::default()));
        for length in 0..all.len() {
            assert_eq!(Wanted::read(&mut Fields(&all[..length])), Err(Malformed), "{length} bytes");
        }
        assert_eq!(Wanted::read(&mut Fields(&[128, 0, 0, 0, 255, 255, 255, 255])), Err(Malformed));
    }

    #[test]
    fn flags_are_the_kernels() {
        let plain = OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        assert_eq!(open_flags(1), Ok(plain | OFlags::RDONLY));
        assert_eq!(open_flags(0x1a), Ok(plain | OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC));
        assert_eq!(open_flags(0x2b), Ok(plain | OFlags::RDWR | OFlags::CREATE | OFlags::EXCL));
        assert_eq!(open_flags(6), Ok(plain | OFlags::WRONLY | OFlags::APPEND));
        assert_eq!(open_flags(0x18), Err(Malformed));
    }

    #[test]
    fn permissions_and_dates_are_those_of_ls() {
        assert_eq!(permissions(0o100_644), "-rw-r--r--");
        assert_eq!(permissions(0o041_777), "drwxrwxrwt");
        assert_eq!(permissions(0o104_711), "-rws--x--x");
        assert_eq!(permissions(0o102_644), "-rw-r-Sr--");
        assert_eq!(permissions(0o120_777), "lrwxrwxrwx");
        let now = 1_795_435_200; // 2026-11-23 12:00 UTC
        assert_eq!(date(now - 60, now), "Nov 23 11:59");
        assert_eq!(date(0, now), "Jan  1  1970");
        assert_eq!(date(951_782_400, now), "Feb 29  2000");
        assert_eq!(date(1_767_225_599, now), "Dec 31  2025");
        assert_eq!(date(-1, now), "Dec 31  1969");
    }
}
