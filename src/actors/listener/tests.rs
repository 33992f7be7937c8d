//! A listener with limits, over real sockets.

use std::convert::Infallible;

use actix_web::HttpResponse;
use futures_util::stream;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::runtime::{ChildSpec, RuntimeMetrics, Tree, TreeConfig};

/// No wait of a test reaches this unless something is wrong.
const LONG: Duration = Duration::from_secs(20);

async fn start(shape: impl FnOnce(&mut ListenerSpec)) -> (Tree, SocketAddr) {
    let bound = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let at = bound.local_addr().unwrap();
    let routes: Routes = Arc::new(|config| {
        config.route("/refused", web::post().to(refused));
        config.default_service(web::to(async || HttpResponse::Ok().body("here")));
    });
    let mut spec = ListenerSpec::bound("axon", Bound::Tcp(bound), Place::Tcp(at), 1, routes);
    shape(&mut spec);
    let (spec, status) = (Arc::new(spec), watch::Sender::new(ListenerStatus::unbound("axon")));
    let metrics = RuntimeMetrics::register(&prometheus::Registry::new()).unwrap();
    let mut tree = Tree::here(TreeConfig::default(), metrics);
    let child = ChildSpec { name: "axon", mailbox: 16, after: &[], drain: Duration::from_secs(5) };
    let (_handle, seat) = tree.declare::<Listener>(child);
    tree.start(seat, move |_| Listener::new(spec.clone(), status.clone())).unwrap();
    (tree, at)
}

/// Answers without having read the body, and keeps it until then.
async fn refused(body: web::Payload) -> HttpResponse {
    let first = stream::once(async move {
        drop(body);
        Ok::<_, Infallible>(web::Bytes::from_static(b"refused"))
    });
    HttpResponse::RequestTimeout().force_close().streaming(first)
}

/// The head of a request to `refused` whose body has so many bytes.
fn refused_head(bytes: usize) -> Vec<u8> {
    format!("POST /refused HTTP/1.1\r\nhost: x\r\ncontent-length: {bytes}\r\n\r\n").into_bytes()
}

/// Connects from an address of this machine's loopback network.
async fn from(source: [u8; 4], to: SocketAddr) -> tokio::net::TcpStream {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::from((source, 0))).unwrap();
    socket.connect(to).await.unwrap()
}

/// What a request over this connection gets; nothing if the connection is closed.
async fn ask(mut stream: tokio::net::TcpStream) -> String {
    let mut reply = Vec::new();
    let asked = async {
        let _ = stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await;
        let _ = stream.read_to_end(&mut reply).await;
    };
    tokio::time::timeout(LONG, asked).await.expect("answered or closed");
    String::from_utf8(reply).unwrap()
}

#[actix_web::test]
async fn silent_connections_of_one_address_keep_nobody_else_out() {
    let crowd = Crowd::new(64, 8);
    let (_tree, to) = start(|spec| spec.crowd = Some(crowd.clone())).await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(from([127, 0, 0, 9], to).await);
    }
    let all_seen = async {
        // The listener's own check comes from 127.0.0.1 and may be counted too.
        while crowd.count().1 < 192 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, all_seen).await.expect("all but 8 are turned away");
    assert!(crowd.count().0 <= 9, "{:?}", crowd.count());
    assert_eq!(ask(from([127, 0, 0, 9], to).await).await, "", "one more of the same address");
    let reply = ask(from([127, 0, 0, 10], to).await).await;
    assert!(reply.starts_with("HTTP/1.1 200") && reply.ends_with("here"), "{reply}");

    drop(silent);
    let gone = async {
        while !ask(from([127, 0, 0, 9], to).await).await.ends_with("here") {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.expect("whoever left makes room");
}

#[actix_web::test]
async fn a_head_that_does_not_arrive_is_given_up() {
    let (_tree, at) = start(|spec| spec.request_timeout = Duration::from_millis(200)).await;
    let mut stream = from([127, 0, 0, 1], at).await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost").await.unwrap();
    let mut reply = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut reply)).await.expect("answered and closed").unwrap();
    assert!(reply.starts_with(b"HTTP/1.1 408"), "{:?}", String::from_utf8_lossy(&reply));
}

/// One request that keeps the connection, and its reply.
async fn first_request(stream: &mut tokio::net::TcpStream) {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut reply = Vec::new();
    while !reply.ends_with(b"here") {
        assert!(stream.read_buf(&mut reply).await.unwrap() > 0, "{}", String::from_utf8_lossy(&reply));
    }
}

#[actix_web::test]
async fn nobody_keeps_a_connection_after_its_first_request() {
    let crowd = Crowd::new(8, 8);
    let (_tree, to) = start(|spec| {
        spec.crowd = Some(crowd.clone());
        spec.request_timeout = Duration::from_millis(500);
        spec.keep_alive = Duration::from_millis(500);
    })
    .await;
    let mut held = Vec::new();
    for source in 20..24 {
        let mut stream = from([127, 0, 0, source], to).await;
        first_request(&mut stream).await;
        // The server stops its timer for idle connections at this byte and has none for the rest of the head.
        stream.write_all(b"G").await.unwrap();
        held.push(stream);
    }
    for mut stream in held {
        let mut more = Vec::new();
        // Where this machine slept, the server was idle for long enough before the byte came, and resets for it.
        match tokio::time::timeout(LONG, stream.read_to_end(&mut more)).await.expect("closed in time") {
            Ok(_) => assert!(more.is_empty(), "{}", String::from_utf8_lossy(&more)),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
    let gone = async {
        while crowd.count().0 > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.expect("what is closed counts no more");
    assert!(ask(from([127, 0, 0, 30], to).await).await.ends_with("here"));
}

#[actix_web::test]
async fn a_full_listener_serves_a_newcomer() {
    let crowd = Crowd::new(16, 16);
    let (_tree, to) = start(|spec| spec.crowd = Some(crowd.clone())).await;
    let mut held = Vec::new();
    // The listener's own checks come from 127.0.0.1 and are counted too, while they last.
    let sources = std::iter::repeat_n(40, 6).chain(41..100);
    for source in sources {
        let mut stream = from([127, 0, 0, source], to).await;
        first_request(&mut stream).await;
        held.push(stream);
        if crowd.count().0 == crowd.limit() {
            break;
        }
    }
    assert!(ask(from([127, 0, 0, 150], to).await).await.ends_with("here"));
    assert!(crowd.count().1 > 0, "somebody had to go");
}

#[actix_web::test]
async fn whoever_is_refused_while_it_sends_reads_why_to_the_end_and_is_not_reset() {
    let crowd = Crowd::new(8, 8);
    let (_tree, at) = start(|spec| spec.crowd = Some(crowd.clone())).await;
    let mut stream = from([127, 0, 0, 40], at).await;
    stream.write_all(&refused_head(4_096)).await.unwrap();
    let mut reply = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut reply)).await.expect("answered and half closed").unwrap();
    let reply = String::from_utf8(reply).unwrap();
    assert!(reply.starts_with("HTTP/1.1 408") && reply.contains("refused"), "{reply}");
    // The rest of the body is still taken: a reset would meet the second byte.
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        stream.write_all(b"x").await.expect("not reset");
    }
    let here = || crowd.count().0;
    assert!(here() >= 1, "it counts while it lingers");
    drop(stream);
    let gone = async {
        // The listener's own check may be there.
        while here() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.expect("closed by both, it is gone");
}

#[actix_web::test]
async fn of_whoever_sends_on_after_a_refusal_little_is_read_for_a_short_time() {
    const BODY: usize = 1 << 30;
    let crowd = Crowd::new(8, 8);
    let (_tree, at) = start(|spec| spec.crowd = Some(crowd.clone())).await;
    let mut stream = from([127, 0, 0, 41], at).await;
    stream.write_all(&refused_head(BODY)).await.unwrap();
    let piece = vec![b'x'; 64 * 1024];
    let mut taken = 0;
    let sent = async {
        while stream.write_all(&piece).await.is_ok() {
            taken += piece.len();
        }
    };
    tokio::time::timeout(LONG, sent).await.expect("closed in time");
    // What the sockets themselves hold on both sides is most of it.
    assert!(taken < 16 << 20, "{} KiB were taken", taken >> 10);
}
