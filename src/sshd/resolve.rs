//! Names of hosts to addresses, for forwarded connections: `/etc/hosts`, then the name servers of `/etc/resolv.conf`.
//!
//! The C library's own resolver loads parts of itself when it runs, which a static program in a foreign image must not.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::net::UdpSocket;

use super::read_bounded;

/// The most of a file that is read, in bytes.
const MOST: u64 = 1 << 20;
/// How long a name server is waited for, and how often each is asked.
const ANSWER: Duration = Duration::from_secs(2);
const ROUNDS: usize = 2;
/// Name servers that are asked: the first of the file, as everywhere.
const SERVERS: usize = 3;
/// Kinds of records.
const A: u16 = 1;
const AAAA: u16 = 28;

/// The addresses of a host, at least one.
///
/// # Errors
///
/// It is no name, it has no address, or no name server answers.
pub(crate) async fn addresses(host: &str) -> io::Result<Vec<IpAddr>> {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(address) = literal.parse() {
        return Ok(vec![address]);
    }
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    let mut found = in_hosts(&text("/etc/hosts").await, &name);
    if found.is_empty() && name == "localhost" {
        found = vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    }
    if found.is_empty() {
        found = ask_all(&name_servers(&text("/etc/resolv.conf").await), &name).await?;
    }
    if found.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
    }
    Ok(found)
}

/// A file's text; none where it cannot be read.
async fn text(path: &'static str) -> String {
    let read = tokio::task::spawn_blocking(|| read_bounded(Path::new(path), MOST)).await;
    read.ok().and_then(Result::ok).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// The addresses of a name, in lower case, in a file in the form of `/etc/hosts`.
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    text.lines()
        .filter_map(|line| {
            let mut words = line.split('#').next()?.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
        })
        .collect()
}

/// The name servers in a file in the form of `/etc/resolv.conf`.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let servers = text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()?.parse().ok())?
    });
    servers.take(SERVERS).collect()
}

/// Asks until one answers, for both kinds of addresses.
async fn ask_all(servers: &[IpAddr], name: &str) -> io::Result<Vec<IpAddr>> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "/etc/resolv.conf names no name server");
    for server in servers.iter().cycle().take(servers.len() * ROUNDS) {
        match tokio::try_join!(ask(*server, name, A), ask(*server, name, AAAA)) {
            Ok((four, six)) => return Ok(four.into_iter().chain(six).collect()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

async fn ask(server: IpAddr, name: &str, kind: u16) -> io::Result<Vec<IpAddr>> {
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    let question =
        question(name, kind, id).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "no name of a host"))?;
    let any: IpAddr = if server.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    // Bound to no port in particular, and to one server: the kernel drops what others send.
    let socket = UdpSocket::bind(SocketAddr::new(any, 0)).await?;
    socket.connect(SocketAddr::new(server, 53)).await?;
    socket.send(&question).await?;
    let answered = async {
        let mut reply = [0; 4096];
        loop {
            let length = socket.recv(&mut reply).await?;
            if let Some(found) = answer(&reply[..length], &question, kind) {
                return Ok(found);
            }
        }
    };
    tokio::time::timeout(ANSWER, answered).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// A question for the records of a name (RFC 1035, section 4). `None` if that is no name.
fn question(name: &str, kind: u16, id: [u8; 2]) -> Option<Vec<u8>> {
    let mut bytes = vec![id[0], id[1], 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..64).contains(length))?;
        bytes.push(length);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(1u16.to_be_bytes());
    (bytes.len() <= 12 + 255 + 4).then_some(bytes)
}

/// The addresses in an answer to this question, none if the name has none. `None` if it is no answer to it.
fn answer(reply: &[u8], question: &[u8], kind: u16) -> Option<Vec<IpAddr>> {
    let same = reply.get(..2)? == question.get(..2)? && reply.get(12..question.len())? == question.get(12..)?;
    // An answer, without an error or to a name that is not there.
    if !same || reply[2] & 0x80 == 0 || ![0, 3].contains(&(reply[3] & 0x0f)) {
        return None;
    }
    let count = u16::from_be_bytes([reply[6], reply[7]]);
    let mut rest = reply.get(question.len()..)?;
    let mut found = Vec::new();
    for _ in 0..count {
        rest = skip_name(rest)?;
        let (head, after) = rest.split_at_checked(10)?;
        let length = usize::from(u16::from_be_bytes([head[8], head[9]]));
        let (data, after) = after.split_at_checked(length)?;
        rest = after;
        match (u16::from_be_bytes([head[0], head[1]]), kind, data.len()) {
            (A, A, 4) => found.extend(<[u8; 4]>::try_from(data).ok().map(IpAddr::from)),
            (AAAA, AAAA, 16) => found.extend(<[u8; 16]>::try_from(data).ok().map(IpAddr::from)),
            // A name that stands for another comes before the other's addresses.
            _ => {}
        }
    }
    Some(found)
}

fn skip_name(mut bytes: &[u8]) -> Option<&[u8]> {
    loop {
        let (length, rest) = bytes.split_first()?;
        match length {
            0 => return Some(rest),
            1..64 => bytes = rest.get(usize::from(*length)..)?,
            192.. => return rest.get(1..),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts_are_found_whatever_their_case() {
        let text =
            "127.0.0.1 localhost # me\n::1\tlocalhost ip6-localhost\nbad line\n#10.0.0.1 old\n172.17.0.2 Box box.lan\n";
        assert_eq!(in_hosts(text, "localhost"), ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        assert_eq!(in_hosts(text, "box").len(), 1);
        assert!(
            in_hosts(text, "old").is_empty()
                && in_hosts(text, "me").is_empty()
                && in_hosts(text, "172.17.0.2").is_empty()
        );
    }

    #[test]
    fn three_name_servers_are_taken() {
        let text = "search lan\nnameserver 127.0.0.11\n nameserver ::1 x\nnameserver nope\nnameserver 1.1.1.1\nnameserver 2.2.2.2\n";
        let found = name_servers(text);
        assert_eq!(found.iter().map(ToString::to_string).collect::<Vec<_>>(), ["127.0.0.11", "::1", "1.1.1.1"]);
    }

    fn reply(question: &[u8], records: &[(u16, &[u8])]) -> Vec<u8> {
        let mut bytes = question.to_vec();
        bytes[2] |= 0x80;
        bytes[7] = u8::try_from(records.len()).unwrap();
        for (kind, data) in records {
            bytes.extend([0xc0, 12]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1, 0, 0, 0, 9, 0, u8::try_from(data.len()).unwrap()]);
            bytes.extend(*data);
        }
        bytes
    }

    #[test]
    fn addresses_are_taken_from_an_answer_to_the_question_only() {
        let asked = question("db.lan", A, [7, 9]).unwrap();
        let good = reply(&asked, &[(5, b"\x02db\xc0\x0c"), (A, &[10, 0, 0, 7]), (AAAA, &[0; 16]), (A, &[1, 2, 3])]);
        assert_eq!(answer(&good, &asked, A), Some(vec![IpAddr::from([10, 0, 0, 7])]));
        assert_eq!(answer(&good, &question("db.lan", A, [7, 8]).unwrap(), A), None, "another id");
        assert_eq!(answer(&good, &question("dc.lan", A, [7, 9]).unwrap(), A), None, "another name");
        assert_eq!(answer(&asked, &asked, A), None, "the question itself");
        let mut none = reply(&asked, &[]);
        none[3] = 3;
        assert_eq!(answer(&none, &asked, A), Some(Vec::new()));
        none[3] = 2;
        assert_eq!(answer(&none, &asked, A), None, "the server failed");
    }

    #[test]
    fn what_is_no_name_is_not_asked_for() {
        for name in ["", ".", "a..b", &"a".repeat(64), &"a.".repeat(140)] {
            assert_eq!(question(name, A, [0, 0]), None, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_answer_makes_it_panic(tail in proptest::collection::vec(proptest::num::u8::ANY, 0..200), count in 0u8..) {
            let asked = question("db.lan", A, [7, 9]).unwrap();
            let mut bytes = reply(&asked, &[]);
            bytes[7] = count;
            bytes.extend(tail);
            answer(&bytes, &asked, A);
        }
    }

    #[tokio::test]
    async fn addresses_are_their_own_names() {
        assert_eq!(addresses("127.0.0.1").await.unwrap(), [IpAddr::from([127, 0, 0, 1])]);
        assert_eq!(addresses("[::1]").await.unwrap(), ["::1".parse::<IpAddr>().unwrap()]);
        assert!(addresses("localhost").await.unwrap().contains(&Ipv4Addr::LOCALHOST.into()));
    }
}
