//! Services that tell the address this machine is seen at, over HTTPS.
//!
//! One GET of HTTP/1.0 for each, whose whole answer is an address as text (`checkip.amazonaws.com` and its kind). It is
//! nothing that peers speak, so it has its own small exchange instead of a TLS stack in every HTTP client of the node:
//! 4 KiB of answer at most, one deadline for all of it, no redirects. What a service says is believed only if another
//! one says the same ([`agreed`]).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use rustls_platform_verifier::BuilderVerifierExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, crypto};

use crate::telemetry::{error_chain, printable};

/// Longest answer that is read, head and body, in bytes.
const MAX_ANSWER: u64 = 4 * 1024;
/// Longest part of an unreadable answer that is told.
const MAX_SHOWN: usize = 80;

/// Which addresses a service is to be reached over: it tells one of the same family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A service, by its address: `https://HOST[:PORT]/PATH`, or `http://` on a loopback address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolver {
    url: Url,
    host: String,
    port: u16,
}

impl FromStr for Resolver {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let url: Url = text.parse().map_err(|e| format!("{text:?} is not an address ({e})"))?;
        let host = url.host_str().ok_or_else(|| format!("{text:?} names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let here = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
        match url.scheme() {
            "https" => {}
            "http" if here => {}
            scheme => return Err(format!("{scheme}:// can be changed on its way; write https://{host}")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(format!("the address of {host} must not carry a name or password"));
        }
        let port = url.port_or_known_default().ok_or_else(|| format!("{host} has no port"))?;
        Ok(Resolver { url, host, port })
    }
}

impl fmt::Display for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.host)
    }
}

impl Resolver {
    /// Asks, over addresses of `family`, within `deadline` in all.
    ///
    /// # Errors
    /// Why it told no address, for people.
    pub async fn ask(&self, family: Family, deadline: Duration) -> Result<IpAddr, String> {
        let late = || format!("no answer within {}", humantime::format_duration(deadline));
        tokio::time::timeout(deadline, self.exchange(family)).await.unwrap_or_else(|_| Err(late()))
    }

    async fn exchange(&self, family: Family) -> Result<IpAddr, String> {
        let stream = self.connect(family).await?;
        let bytes = match self.url.scheme() {
            "https" => {
                let name = ServerName::try_from(self.host.clone()).map_err(|e| e.to_string())?;
                let stream = tls()?.connect(name, stream).await;
                get(stream.map_err(|e| format!("no TLS connection: {}", error_chain(&e)))?, &self.request()).await?
            }
            _ => get(stream, &self.request()).await?,
        };
        answer(&bytes)
    }

    async fn connect(&self, family: Family) -> Result<TcpStream, String> {
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        let found = found.map_err(|e| format!("its name cannot be resolved: {e}"))?;
        let addresses: Vec<SocketAddr> = found.filter(|at| at.is_ipv4() == (family == Family::V4)).take(4).collect();
        let mut last = format!("it has no address of IP{family:?}").to_lowercase();
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    fn request(&self) -> String {
        let (path, query) = (self.url.path(), self.url.query().map(|q| format!("?{q}")).unwrap_or_default());
        let host = match self.url.port() {
            Some(port) => format!("{}:{port}", self.url.host_str().unwrap_or(&self.host)),
            None => self.url.host_str().unwrap_or(&self.host).to_owned(),
        };
        format!(
            "GET {path}{query} HTTP/1.0\r\nHost: {host}\r\nAccept: text/plain\r\nUser-Agent: compute-subnet\r\n\r\n"
        )
    }
}

/// The certificates that this system trusts.
fn tls() -> Result<TlsConnector, String> {
    let text = |e: tokio_rustls::rustls::Error| format!("TLS cannot be used here: {}", error_chain(&e));
    let provider = Arc::new(crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().map_err(text)?;
    let config = config.with_platform_verifier().with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Sends the request and reads until the other side closes.
async fn get(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> Result<Vec<u8>, String> {
    stream.write_all(request.as_bytes()).await.map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    match stream.take(MAX_ANSWER).read_to_end(&mut bytes).await {
        Ok(_) => Ok(bytes),
        // Some servers close without TLS's own farewell; the answer says by itself whether it is whole.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof && !bytes.is_empty() => Ok(bytes),
        Err(error) => Err(error.to_string()),
    }
}

/// The address in an answer: status 200 and a body that is an address and nothing else.
fn answer(bytes: &[u8]) -> Result<IpAddr, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "its answer is no text".to_owned())?;
    let unreadable = || format!("its answer is not an address: {}", printable(text, MAX_SHOWN));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(unreadable)?;
    let mut status = head.lines().next().unwrap_or_default().split(' ');
    let (version, code) = (status.next().unwrap_or_default(), status.next().unwrap_or_default());
    if !version.starts_with("HTTP/1.") || code != "200" {
        return Err(unreadable());
    }
    body.trim().parse::<IpAddr>().map(|ip| ip.to_canonical()).map_err(|_| unreadable())
}

/// The address that two services name.
///
/// # Errors
/// What each said, if no two agree.
pub fn agreed(answers: &[(String, Result<IpAddr, String>)]) -> Result<IpAddr, String> {
    let named: Vec<IpAddr> = answers.iter().filter_map(|(_, told)| told.as_ref().ok().copied()).collect();
    for (index, ip) in named.iter().enumerate() {
        if named[..index].contains(ip) {
            return Ok(*ip);
        }
    }
    let said = answers.iter().map(|(who, told)| match told {
        Ok(ip) => format!("{who}: {ip}"),
        Err(why) => format!("{who}: {why}"),
    });
    Err(format!("no two services name one address ({})", said.collect::<Vec<_>>().join("; ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OK: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n";

    #[test]
    fn an_answer_is_an_address_and_nothing_else() {
        let of = |text: &str| answer(text.as_bytes());
        assert_eq!(of(&format!("{OK}8.8.4.4\n")), Ok("8.8.4.4".parse().unwrap()));
        assert_eq!(of(&format!("{OK}2606:4700::1111")), Ok("2606:4700::1111".parse().unwrap()));
        assert_eq!(of(&format!("{OK}::ffff:8.8.4.4")), Ok("8.8.4.4".parse().unwrap()));
        for wrong in [
            "",
            "8.8.4.4",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 302 Found\r\nLocation: https://x\r\n\r\n8.8.4.4",
            "HTTP/1.1 200 OK\r\n\r\n<html>8.8.4.4</html>",
            "HTTP/1.1 200 OK\r\n\r\n8.8.4.4 8.8.8.8",
            "SSH-2.0-x 200\r\n\r\n8.8.4.4",
        ] {
            assert!(of(wrong).is_err(), "{wrong:?}");
        }
        let long = answer(format!("{OK}{}\u{1b}[31m", "x".repeat(5_000)).as_bytes()).unwrap_err();
        assert!(long.len() < 200 && !long.contains('\u{1b}'), "{long}");
        assert!(answer(&[0xff, 0xfe]).is_err());
    }

    #[test]
    fn two_must_say_the_same_and_one_liar_is_outvoted() {
        let ip = |text: &str| Ok(text.parse().unwrap());
        let all = |answers: &[Result<IpAddr, String>]| {
            let named = answers.iter().enumerate().map(|(n, a)| (format!("s{n}"), a.clone()));
            agreed(&named.collect::<Vec<_>>())
        };
        assert_eq!(all(&[ip("8.8.4.4"), ip("1.1.1.1"), ip("8.8.4.4")]), ip("8.8.4.4"));
        assert_eq!(all(&[Err("gone".into()), ip("8.8.4.4"), ip("8.8.4.4")]), ip("8.8.4.4"));
        let apart = all(&[ip("8.8.4.4"), ip("1.1.1.1"), Err("gone".into())]).unwrap_err();
        assert!(apart.contains("s0: 8.8.4.4") && apart.contains("s2: gone"), "{apart}");
        assert!(all(&[ip("8.8.4.4")]).is_err(), "one is not enough");
        assert!(all(&[]).is_err());
    }

    #[test]
    fn a_service_is_asked_by_https_or_on_this_machine() {
        let parse = |text: &str| text.parse::<Resolver>();
        for good in ["https://api.ipify.org", "https://[2606:4700::1111]:8443/ip?x=1", "http://127.0.0.1:9/"] {
            assert!(parse(good).is_ok(), "{good}");
        }
        for bad in ["http://api.ipify.org", "ftp://x", "api.ipify.org", "https://a:b@x.org", ""] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let request = parse("https://ifconfig.me:8443/ip?a=b").unwrap().request();
        assert!(request.starts_with("GET /ip?a=b HTTP/1.0\r\nHost: ifconfig.me:8443\r\n"), "{request}");
    }

    /// A service on this machine that answers everybody with `text`, byte for byte.
    async fn service(text: String) -> Resolver {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await; // a client that asks nothing is answered all the same
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        format!("http://{at}/").parse().unwrap()
    }

    #[tokio::test]
    async fn a_service_is_asked_over_the_wire_and_its_answer_is_bounded() {
        let limit = Duration::from_secs(5);
        let good = service(format!("{OK}8.8.4.4\n")).await;
        assert_eq!(good.ask(Family::V4, limit).await, Ok("8.8.4.4".parse().unwrap()));
        assert!(good.ask(Family::V6, limit).await.unwrap_err().contains("no address"));
        let flood = service(format!("{OK}{}", "9".repeat(1 << 20))).await;
        assert!(flood.ask(Family::V4, limit).await.is_err());
        let tls = Resolver { url: "https://127.0.0.1/".parse().unwrap(), ..good };
        let error = tls.ask(Family::V4, limit).await.unwrap_err();
        assert!(error.contains("TLS"), "what does not speak TLS is not believed: {error}");
    }

    #[tokio::test]
    async fn a_service_that_says_nothing_is_not_waited_for() {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let silent: Resolver = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let told = silent.ask(Family::V4, Duration::from_millis(50)).await;
        assert_eq!(told, Err("no answer within 50ms".to_owned()));
    }

    proptest! {
        #[test]
        fn no_answer_makes_the_reader_fail(bytes in prop::collection::vec(any::<u8>(), 0..300), ok in any::<bool>()) {
            let mut all = if ok { OK.as_bytes().to_vec() } else { Vec::new() };
            all.extend(bytes);
            let _ = answer(&all); // it returns
        }
    }
}
