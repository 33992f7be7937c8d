//! Forwarded ports.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::time::Duration;

use crate::bed::{Bed, bytes};
use crate::wait::{free_ports, until};

/// Answers each connection with what it was sent, once that has ended.
fn mirror() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                stream.write_all(&all).unwrap();
            });
        }
    });
    port
}

/// What comes back through this port.
fn reflect(port: u16, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut writer = stream.try_clone().unwrap();
    let all = sent.to_vec();
    let writing = std::thread::spawn(move || {
        writer.write_all(&all).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    back
}

struct Forwarding(Child);

impl Drop for Forwarding {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn forwarding(bed: &Bed, arguments: &[&str]) -> Forwarding {
    let mut ssh = bed.client("ssh");
    ssh.args(arguments).args(["-o", "ExitOnForwardFailure=yes", "root@127.0.0.1", "echo ready; sleep 100"]);
    let mut ssh = ssh.stdout(Stdio::piped()).spawn().unwrap();
    ssh.stdout.as_mut().unwrap().read_exact(&mut [0; 6]).unwrap();
    Forwarding(ssh)
}

#[test]
fn a_clients_port_reaches_a_service_of_the_container_by_address_and_name() {
    let bed = Bed::start();
    let (service, first) = (mirror(), free_ports());
    let by_address = format!("{first}:127.0.0.1:{service}");
    let by_name = format!("{}:localhost:{service}", first + 1);
    let _ssh = forwarding(&bed, &["-L", &by_address, "-L", &by_name]);
    let sent = bytes(5 << 20);
    for port in [first, first + 1] {
        assert!(reflect(port, &sent) == sent);
    }
    let both = [first, first + 1].map(|port| {
        std::thread::spawn({
            let sent = sent.clone();
            move || reflect(port, &sent) == sent
        })
    });
    assert!(both.into_iter().all(|same| same.join().unwrap()));
}

#[test]
fn a_port_of_the_container_reaches_a_service_of_the_client() {
    let bed = Bed::start();
    let (service, port) = (mirror(), free_ports());
    let _ssh = forwarding(&bed, &["-R", &format!("0.0.0.0:{port}:127.0.0.1:{service}")]);
    let sent = bytes(5 << 20);
    assert!(reflect(port, &sent) == sent);
    let listening = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (own, all) = (format!("0100007F:{port:04X}"), format!("00000000:{port:04X}"));
    assert!(listening.contains(&own) && !listening.contains(&all), "only the container itself is let in");
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_said_to_be_so() {
    let bed = Bed::start();
    let ports = free_ports();
    let _ssh = forwarding(&bed, &["-L", &format!("{ports}:127.0.0.1:{}", ports + 1)]);
    let mut stream = TcpStream::connect(("127.0.0.1", ports)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    until("the log", async || bed.log().contains("cannot forward to").then_some(())).await;
    assert_eq!(bed.prints("echo still here"), "still here\n");
}

#[test]
fn a_socket_of_the_container_is_reached() {
    let bed = Bed::start();
    let (path, port) = (bed.path("socket"), free_ports());
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"of a socket").unwrap());
    let _ssh = forwarding(&bed, &["-L", &format!("{port}:{}", path.display())]);
    assert_eq!(reflect(port, b""), b"of a socket");
}
