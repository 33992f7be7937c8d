//! 256 miners at once, over real sockets. Times are real here, so the bounds are wide: `benches/fan_out` has the figures.

use std::time::Duration;

use compute_subnet::wire::Peer;
use compute_subnet::wire::classic::Ping;
use compute_subnet::wire::dendrite::{FanOut, Unanswered, fan_out};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::Instant;

use crate::support::*;

const WORK: Duration = Duration::from_millis(50);

async fn miners(n: usize) -> Vec<Server> {
    let mut servers = Vec::with_capacity(n);
    for _ in 0..n {
        servers.push(Server::start(|_| Answer::After(WORK, Box::new(Answer::Keep(success())))).await);
    }
    servers
}

/// Asks all; for each whether and when it answered.
async fn ask_all(peers: Vec<Peer>, within: Duration) -> (Vec<Result<Duration, Unanswered>>, Duration) {
    let (bob, start) = (bob(), Instant::now());
    let ask = |peer: Peer| {
        let bob = bob.clone();
        async move {
            let reply = bob.ask(&peer, &Ping {}, LONG).await;
            reply.answer.ok().map(|_| start.elapsed())
        }
    };
    let answers = fan_out(peers, ask, within, FanOut::default()).await;
    let took = start.elapsed();
    let flat = |answer: Result<Option<Duration>, Unanswered>| match answer {
        Ok(Some(at)) => Ok(at),
        Ok(None) => Err(Unanswered::Late),
        Err(why) => Err(why),
    };
    (answers.into_iter().map(|(_, answer)| flat(answer)).collect(), took)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_and_fifty_six_miners_answer_nearly_as_soon_as_one() {
    let servers = miners(256).await;
    let (answers, took) = ask_all(servers.iter().map(|s| s.peer).collect(), LONG).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    // One after another would be 12.8 s, batch after batch 0.2 s and more.
    assert!(took < Duration::from_secs(3), "{took:?}");
}

/// Listens and has no room for a connection: what asks for one hears nothing.
async fn full() -> (Peer, TcpListener, Vec<tokio::task::JoinHandle<std::io::Result<TcpStream>>>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let listener = socket.listen(1).unwrap();
    let addr = listener.local_addr().unwrap();
    let fill = (0..4).map(|_| tokio::spawn(TcpStream::connect(addr))).collect();
    (Peer { hotkey: key("Alice").hotkey(), addr }, listener, fill)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn neither_the_silent_nor_the_refusing_nor_the_full_make_another_answer_late() {
    let answering = miners(64).await;
    let (mut peers, mut held, mut refused, mut full_ones) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..64 {
        // Accepts (the system does) and never answers.
        let silent = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        peers.push(Peer { hotkey: key("Alice").hotkey(), addr: silent.local_addr().unwrap() });
        held.push(silent);
        // Bound, so that nobody else gets the port, and not listening.
        let refusing = TcpSocket::new_v4().unwrap();
        refusing.bind(([127, 0, 0, 1], 0).into()).unwrap();
        peers.push(Peer { hotkey: key("Alice").hotkey(), addr: refusing.local_addr().unwrap() });
        refused.push(refusing);
        full_ones.push(full().await);
    }
    // Some fill attempts hang for good, which is the point; give those that do not a moment.
    tokio::time::sleep(Duration::from_millis(100)).await;
    peers.extend(full_ones.iter().map(|(peer, ..)| *peer));
    // The well ones come last: batches of others are before theirs.
    peers.extend(answering.iter().map(|s| s.peer));

    let within = Duration::from_secs(2);
    let (answers, took) = ask_all(peers, within).await;
    assert!(took >= within && took < within + Duration::from_secs(1), "{took:?}");
    let (others, well) = answers.split_at(192);
    assert!(others.iter().all(|a| *a == Err(Unanswered::Late)), "{others:?}");
    for answer in well {
        assert!(answer.is_ok_and(|at| at < Duration::from_millis(1500)), "{answer:?}");
    }
    for (.., fill) in full_ones {
        fill.into_iter().for_each(|task| task.abort());
    }
}
