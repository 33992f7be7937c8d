//! Requests that are too large, too long, or too slow.

use std::time::Duration;

use tokio::time::Instant;

use crate::http::{HOME, Repeated, exchange};
use crate::stage::Stage;

const MIB: u64 = 1 << 20;
/// A sender that does not stop is cut after 2 to 8 s, also on a busy machine within this time; one that is never cut goes
/// on for longer. Until then what it sends is thrown away, so that one which does stop hears why it was refused.
const CUT: Duration = Duration::from_secs(30);
/// More than loopback carries in that time.
const ENDLESS: u64 = 1 << 40;

/// Sends a beginning and then the same piece until it is cut, while nothing of it has an effect.
async fn cut(stage: &mut Stage, what: &str, first: Vec<u8>, piece: Vec<u8>, times: u64, statuses: &[u16]) {
    let before = (stage.effects().await, stage.miner.memory());
    let pieces = Repeated { first: Some(first), piece, times, every: Duration::ZERO };
    let begun = Instant::now();
    let reply = exchange(HOME, stage.miner.axon, pieces).await;
    let took = begun.elapsed();
    assert!(took < CUT, "{what}: cut after {took:?} only");
    assert!(statuses.contains(&reply.status), "{what}: {} {}", reply.status, reply.text);
    assert_eq!(stage.effects().await, before.0, "{what}: a handler ran");
    let grown = stage.miner.memory().peak.saturating_sub(before.1.peak);
    assert!(grown < 16 * 1024, "{what}: the miner's memory grew by {grown} KiB");
    let status = if reply.status == 0 { "closed".to_owned() } else { reply.status.to_string() };
    let (taken, seconds) = (reply.taken as f64 / MIB as f64, took.as_secs_f64());
    stage.note(1, &format!("{what}: {status} after {taken:.0} MiB in {seconds:.1} s"));
}

pub(crate) async fn a_hundred_megabytes_are_refused_and_not_kept(mut stage: Stage) -> Stage {
    let piece = vec![b' '; 64 * 1024];
    let mut chunk = format!("{:x}\r\n", piece.len()).into_bytes();
    chunk.extend_from_slice(&piece);
    chunk.extend_from_slice(b"\r\n");
    let times = 100 * MIB / piece.len() as u64;
    for (scheme, request) in [("own", stage.own()), ("classic", stage.classic())] {
        let stated = format!("{}content-length: {}\r\n\r\n", request.head(), 100 * MIB).into_bytes();
        cut(&mut stage, &format!("{scheme}, stated"), stated, piece.clone(), times, &[413]).await;
        let head = format!("{}transfer-encoding: chunked\r\n\r\n", request.head()).into_bytes();
        cut(&mut stage, &format!("{scheme}, chunked"), head.clone(), chunk.clone(), times, &[413]).await;
        cut(&mut stage, &format!("{scheme}, tiny chunks"), head.clone(), b"1\r\n \r\n".repeat(4096), 64, &[413]).await;
        if scheme == "own" || stage.long {
            cut(&mut stage, &format!("{scheme}, without end"), head, chunk.clone(), ENDLESS, &[413]).await;
        }
    }
    stage
}

pub(crate) async fn heads_without_end_are_cut(mut stage: Stage) -> Stage {
    let head = stage.own().head();
    let refused = &[400, 413, 431, 0];
    let many: String = (0..10_000).map(|n| format!("x-{n}: y\r\n")).collect();
    let first = format!("{head}{many}\r\n").into_bytes();
    cut(&mut stage, "10,000 headers", first, vec![], 0, refused).await;
    let first = format!("{head}x-long: {}\r\n\r\n", "y".repeat(MIB as usize)).into_bytes();
    cut(&mut stage, "a header of 1 MiB", first, vec![], 0, refused).await;
    let first = format!("{head}x-endless: ").into_bytes();
    cut(&mut stage, "a line without end", first, vec![b'y'; 64 * 1024], 1024, refused).await;
    cut(&mut stage, "a target without end", b"POST /".to_vec(), vec![b'y'; 64 * 1024], 1024, refused).await;
    let first = format!("{head}{}\r\n", "x-bittensor-nonce: 1\r\n".repeat(40)).into_bytes();
    cut(&mut stage, "one header 40 times", first, vec![], 0, &[400, 401, 431]).await;
    stage
}

pub(crate) async fn slow_senders_are_cut(mut stage: Stage) -> Stage {
    const SLOW: usize = 64;
    let before = stage.effects().await;
    let head = format!("{}content-length: 4096\r\n\r\n", stage.own().head()).into_bytes();
    let (to, begun) = (stage.miner.axon, Instant::now());
    let slow = |first: &[u8]| {
        let pieces = Repeated {
            first: Some(first.to_vec()),
            piece: b"x".to_vec(),
            times: 600,
            every: Duration::from_millis(100),
        };
        tokio::task::spawn_local(async move { (exchange(HOME, to, pieces).await, begun.elapsed()) })
    };
    let heads: Vec<_> = (0..SLOW).map(|_| slow(b"POST /ComputeSpecs HTTP/1.1\r\nx-slow: ")).collect();
    let bodies: Vec<_> = (0..SLOW).map(|_| slow(&head)).collect();
    // Everybody else is served meanwhile.
    for _ in 0..8 {
        stage.honest_call(std::net::Ipv4Addr::new(127, 0, 0, 2)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for (what, tasks) in [("head", heads), ("body", bodies)] {
        let (mut statuses, mut latest) = (std::collections::BTreeMap::<u16, usize>::new(), Duration::ZERO);
        for task in tasks {
            let (reply, took) = task.await.unwrap();
            assert!([408, 0].contains(&reply.status), "{what}: {}", reply.text);
            assert!(took < CUT, "{what}: cut after {took:?}");
            *statuses.entry(reply.status).or_default() += 1;
            latest = latest.max(took);
        }
        stage.note(SLOW as u64, &format!("slow {what}: {statuses:?} in {:.1} s", latest.as_secs_f64()));
    }
    let after = stage.effects().await;
    let acted = |effects: &std::collections::BTreeMap<String, u64>| {
        effects
            .iter()
            .filter(|(n, _)| n.contains("message=\"Allocate") || n.contains("leases"))
            .map(|(_, v)| *v)
            .sum::<u64>()
    };
    // Honest probes may look; nobody took the machine.
    assert_eq!(acted(&after), acted(&before));
    stage
}
