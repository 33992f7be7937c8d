//! Bad signatures in such numbers that their address is no longer listened to.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};

use compute_subnet::wire::btauth;

use crate::http::{HOME, Reply, Whole, exchange};
use crate::requests::{PROBE, Request, now_ns};
use crate::stage::Stage;

/// `blacklist.max_bad_signatures` as shipped: that many are answered within a window.
const ALLOWED: usize = 100;
/// Sent in all. Fewer than `axon.burst_per_ip`, so that it is not the number of requests that is refused.
const SENT: usize = 150;

/// An address of this machine that is not loopback's, which no penalty ever meets. Nothing is sent to find it.
fn outside() -> Option<Ipv4Addr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(at) if !at.ip().is_loopback() => Some(*at.ip()),
        _ => None,
    }
}

/// Answers of the axon that ended so.
async fn counted(stage: &Stage, outcome: &str) -> u64 {
    let metrics = stage.miner.metrics().await;
    let of = |name: &str| {
        name.starts_with("compute_axon_requests_total") && name.contains(&format!("outcome=\"{outcome}\""))
    };
    metrics.iter().filter(|(name, _)| of(name)).map(|(_, value)| *value as u64).sum()
}

pub(crate) async fn a_flood_of_bad_signatures_ends_at_the_door(mut stage: Stage) -> Stage {
    let Some(from) = outside() else {
        stage.leave_out("the whole attack: this machine has no address but loopback's".to_owned());
        return stage;
    };
    let to = SocketAddr::V4(SocketAddrV4::new(from, stage.miner.axon.port()));
    let send = async |request: Request| -> Reply { exchange(from, to, Whole(Some(request.bytes()))).await };
    let zeros = format!("0x{}", "0".repeat(128));
    let bad = |stage: &Stage, number: usize| match number % 2 {
        0 => stage.own().with(btauth::SIGNATURE_HEADER, &zeros),
        _ => stage.classic().with("bt_header_dendrite_signature", &zeros),
    };
    let before = stage.effects().await;
    let mut statuses = Vec::new();
    for number in 0..SENT {
        let reply = send(bad(&stage, number)).await;
        let said = match reply.status {
            401 => "ignature",
            403 => "Address is blacklisted",
            _ => panic!("{}", reply.text),
        };
        assert!(reply.text.contains(said), "{}", reply.text);
        statuses.push(reply.status);
    }
    let heard = statuses.iter().take_while(|status| **status == 401).count();
    assert!(statuses[heard..].iter().all(|status| *status == 403), "once refused, always refused: {statuses:?}");
    // The penalty is given behind the answers: the few that are under way are still answered.
    assert!((ALLOWED..ALLOWED + 25).contains(&heard), "{heard} were answered before the address was refused");

    // At the door means that nothing of a request is looked at: none is counted as a bad signature any more, and good
    // ones are refused as well.
    let bad_before = counted(&stage, "bad_signature").await;
    let refused_before = counted(&stage, "address_refused").await;
    let (key, us) = (stage.honest().clone(), stage.us());
    let mut nothing = stage.own();
    nothing.headers.clear();
    for request in [
        bad(&stage, 0),
        bad(&stage, 1),
        nothing,
        Request::own(&key, &us, "/ComputeSpecs", b"{}", now_ns()),
        Request::classic(&key, &us, PROBE.as_bytes(), now_ns()),
    ] {
        let reply = send(request).await;
        assert!(reply.status == 403 && reply.text.contains("Address is blacklisted"), "{}", reply.text);
    }
    assert_eq!(counted(&stage, "bad_signature").await, bad_before);
    assert_eq!(counted(&stage, "address_refused").await, refused_before + 5);
    assert_eq!(stage.effects().await, before, "a handler ran");
    // The penalty is that address's alone.
    stage.honest_call(HOME).await.unwrap();
    stage.note(SENT as u64 + 5, &format!("401 {heard} times, then 403 of the address"));
    stage
}
