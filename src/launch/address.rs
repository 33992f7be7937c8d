//! The address to announce, found at the start: from the settings, from the network card, or from services outside.
//!
//! It is looked for once. A node whose address changes while it runs announces the new one after a restart, or is told it
//! by `axon.external_ip`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use futures_util::future::join_all;

use crate::chain::serving::announceable;
use crate::settings::Settings;
use crate::wire::resolver::{Family, Resolver, agreed};

/// How long one service may take.
const ASK: Duration = Duration::from_secs(5);
/// Where packets to anywhere go, for the system to choose its own address by. Nothing is sent there.
const ANYWHERE: [(IpAddr, IpAddr); 2] = [
    (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1))),
    (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111))),
];

/// The axon's address as others reach it, as far as it can be known; `None` after it was logged why not.
pub(super) async fn find(settings: &Settings) -> Option<SocketAddr> {
    let axon = &settings.axon;
    let port = axon.external_port.unwrap_or(axon.port);
    let ip = match axon.external_ip {
        Some(ip) => ip,
        None if !axon.ip.is_unspecified() => axon.ip,
        None => found(settings).await?,
    };
    Some(SocketAddr::new(ip, port))
}

/// The families that a socket on this unspecified address hears, the one that most peers have first.
fn families(listening: IpAddr) -> &'static [Family] {
    match listening {
        IpAddr::V4(_) => &[Family::V4],
        IpAddr::V6(_) => &[Family::V4, Family::V6],
    }
}

/// The address that the system itself would send from, of a family that a socket on this address hears.
pub(super) fn own_for(listening: IpAddr) -> Option<IpAddr> {
    families(listening).iter().find_map(|family| own(*family))
}

async fn found(settings: &Settings) -> Option<IpAddr> {
    let policy = settings.address_policy();
    for family in families(settings.axon.ip) {
        let Some(ip) = own(*family) else { continue };
        match announceable(ip, policy) {
            Ok(()) => {
                tracing::info!(address = %ip, "the address to announce is the network card's own");
                return Some(ip);
            }
            Err(refusal) => tracing::debug!(address = %ip, %refusal, "the network card's address is not announced"),
        }
    }
    // Checked with the settings, so every one of them can be read.
    let resolvers: Vec<Resolver> = settings.axon.ip_resolvers.iter().filter_map(|text| text.parse().ok()).collect();
    if resolvers.is_empty() {
        tracing::warn!(
            "this machine does not know its own address, and axon.ip_resolvers asks nobody: set axon.external_ip"
        );
        return None;
    }
    let mut why = String::new();
    for family in families(settings.axon.ip) {
        match agreed(&ask(&resolvers, *family).await) {
            Ok(ip) => match announceable(ip, policy) {
                Ok(()) => {
                    tracing::info!(address = %ip, "the address to announce is the one that two services see");
                    return Some(ip);
                }
                Err(refusal) => why = format!("two services see {ip}: {refusal}"),
            },
            Err(error) => why = error,
        }
    }
    tracing::warn!(
        why,
        "this machine's address could not be found: set axon.external_ip, or start again once the network works"
    );
    None
}

/// All services at once, each within its own deadline.
async fn ask(resolvers: &[Resolver], family: Family) -> Vec<(String, Result<IpAddr, String>)> {
    join_all(resolvers.iter().map(async |r| (r.to_string(), r.ask(family, ASK).await))).await
}

/// The address that the system itself would send from.
fn own(family: Family) -> Option<IpAddr> {
    let [v4, v6] = ANYWHERE;
    let (from, to) = if family == Family::V4 { v4 } else { v6 };
    let socket = UdpSocket::bind((from, 0)).ok()?;
    // A datagram socket that is connected has chosen its own address, and has sent nothing.
    socket.connect((to, 53)).ok()?;
    socket.local_addr().ok().map(|at| at.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::{Cli, Role, load};

    fn settings(keys: &[(&str, &str)]) -> Settings {
        let cli = keys.iter().fold(Cli::default(), |cli, (key, value)| cli.with_key(key, value));
        load(Role::Miner, &cli, [("HOME".to_owned(), "/home/op".to_owned())]).unwrap().settings
    }

    async fn service(ip: &str) -> String {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let text = format!("HTTP/1.0 200 OK\r\n\r\n{ip}\n");
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        format!("http://{at}/")
    }

    #[tokio::test]
    async fn what_the_settings_say_is_taken_and_nobody_is_asked() {
        let given = settings(&[("axon.external_ip", "8.8.4.4"), ("axon.external_port", "9000")]);
        assert_eq!(find(&given).await, Some("8.8.4.4:9000".parse().unwrap()));
        let concrete = settings(&[("axon.ip", "2606:4700::1111")]);
        assert_eq!(find(&concrete).await, Some("[2606:4700::1111]:8091".parse().unwrap()));
    }

    #[tokio::test]
    async fn services_are_believed_when_two_agree_and_never_with_an_address_that_nobody_reaches() {
        let (one, two) = (service("8.8.4.4").await, service("8.8.4.4").await);
        let (other, inside) = (service("1.1.1.1").await, service("10.0.0.1").await);
        let also_inside = service("10.0.0.1").await;
        let ask = async |first: &str, second: &str| {
            let list: Vec<Resolver> = [first, second].iter().map(|url| url.parse().unwrap()).collect();
            let ip = agreed(&super::ask(&list, Family::V4).await).ok()?;
            announceable(ip, settings(&[]).address_policy()).ok().map(|()| ip)
        };
        assert_eq!(ask(&one, &two).await, Some("8.8.4.4".parse().unwrap()));
        assert_eq!(ask(&one, &other).await, None);
        assert_eq!(ask(&inside, &also_inside).await, None);
    }

    #[test]
    fn a_socket_for_both_families_is_announced_by_the_older_one_first() {
        assert_eq!(families("0.0.0.0".parse().unwrap()), [Family::V4]);
        assert_eq!(families("::".parse().unwrap()), [Family::V4, Family::V6]);
    }
}
