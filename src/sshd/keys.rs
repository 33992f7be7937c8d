//! The files `user_key` and `terminal_key`: public keys in the form of OpenSSH's `authorized_keys`, and nothing but keys.

use russh::keys::PublicKey;

/// The smallest RSA key that may log in, in bits.
const RSA_BITS: u32 = 2048;

/// Why a line of a keys file lets nobody in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadLine {
    /// It begins with options, `command="…"` for example. They are refused, not ignored: who wrote them meant to restrict.
    #[error("it has options before the key: write the key alone, as in the file that ends with .pub")]
    Options,
    /// A key of this kind, or in this state, cannot be read.
    #[error("it is no public key of OpenSSH: {0}")]
    NoKey(String),
    /// The key is too easily broken.
    #[error("an RSA key of {0} bits is too short: use one of {RSA_BITS} bits or more, or ed25519")]
    Short(u32),
}

/// The keys of a file, and the numbers (from 1) of lines that are none, with the reason. Empty lines and comments are left out.
pub(crate) fn parse(text: &str) -> (Vec<PublicKey>, Vec<(usize, BadLine)>) {
    let (mut keys, mut bad) = (Vec::new(), Vec::new());
    let lines = text.lines().map(str::trim).enumerate().filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    for (index, line) in lines {
        match parse_line(line) {
            Ok(key) => keys.push(key),
            Err(why) => bad.push((index + 1, why)),
        }
    }
    (keys, bad)
}

/// Only the first two words count: the algorithm and the key. What follows is a comment.
fn parse_line(line: &str) -> Result<PublicKey, BadLine> {
    let mut words = line.split_ascii_whitespace();
    let algorithm = words.next().unwrap_or_default();
    if !is_algorithm(algorithm) {
        return Err(BadLine::Options);
    }
    let Some(encoded) = words.next() else { return Err(BadLine::NoKey("the key itself is missing".into())) };
    let key = PublicKey::from_openssh(&format!("{algorithm} {encoded}")).map_err(|e| BadLine::NoKey(e.to_string()))?;
    match key.key_data().rsa().map(|rsa| rsa.key_size()) {
        Some(bits) if bits < RSA_BITS => Err(BadLine::Short(bits)),
        _ => Ok(key),
    }
}

/// Whether this is how the name of a key's algorithm looks, known here or not; options never do.
fn is_algorithm(word: &str) -> bool {
    let known = ["ssh-", "ecdsa-", "sk-ssh-", "sk-ecdsa-"].iter().any(|prefix| word.starts_with(prefix));
    known && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"-@.".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use russh::keys::Algorithm;

    const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    const ECDSA: &str = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBFOKmW4CY3uNclE5b3iH9uzwP/5jjmInDL0EESrJtpkj6ZUXXrKYy6/Bv6Jl9jwASEV6do6ZXzVYbbZrMVavoKA=";

    fn only(text: &str) -> BadLine {
        let (keys, bad) = parse(text);
        assert!(keys.is_empty(), "{text}");
        bad.into_iter().next().expect("one bad line").1
    }

    #[test]
    fn keys_are_found_with_and_without_a_comment() {
        let (keys, bad) = parse(&format!("# mine\n\n{ED25519} me at home\n  {ECDSA}\r\n"));
        assert_eq!(bad, []);
        assert_eq!(keys[0].algorithm(), Algorithm::Ed25519);
        assert_eq!(keys.len(), 2);
    }

    #[test]
    fn a_key_with_options_lets_nobody_in() {
        for options in
            ["command=\"id\"", "restrict", "from=\"10.0.0.0/8\"", "cert-authority", "no-pty,no-X11-forwarding"]
        {
            assert_eq!(only(&format!("{options} {ED25519}")), BadLine::Options);
        }
        assert_eq!(only(&format!("command=\"echo ssh-ed25519 x\" {ED25519}")), BadLine::Options);
    }

    #[test]
    fn what_is_no_key_is_named_with_its_line() {
        let text = format!(
            "ssh-ed25519\n{ED25519}\nssh-ed25519 AAAA\nssh-foo AAAA\n{}",
            ED25519.replace("ssh-ed25519 A", "ssh-rsa A")
        );
        let (keys, bad) = parse(&text);
        assert_eq!(keys.len(), 1);
        assert_eq!(bad.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 3, 4, 5]);
        assert!(bad.iter().all(|(_, why)| matches!(why, BadLine::NoKey(_))), "{bad:?}");
    }

    #[test]
    fn a_short_rsa_key_is_refused() {
        let short = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQCjWVCng410ea+GbTc+ZGeI93QXY55wDs8fIYp4NMKi+eTBmhBfxLUA6l7DTNmfIz42Ird7E6COlFRceHp+K2/DzpjE5e+9DdyI4rCBeTsMoCctrGsNo53EF1dBUPcGN3j31me56bTPbItZXaMY6TV8rQ/j9xRINO3EtwE9B0Yahw==";
        assert_eq!(only(short), BadLine::Short(1024));
    }

    proptest::proptest! {
        #[test]
        fn no_text_makes_it_panic(text in ".{0,400}") {
            parse(&text);
            parse(&format!("ssh-rsa {text}"));
        }
    }
}
