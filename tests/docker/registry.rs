//! A registry of our own on this machine, from which the engine pulls: an image that is small, and one that is too large.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bed::run;

/// What the layer of the large image is said to have, bytes.
pub(crate) const LARGE: u64 = 3 << 30;
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const BLOB: &str = "application/octet-stream";

/// A registry; it ends with the program.
pub(crate) struct Registry {
    /// Where it is: address and port.
    pub(crate) at: String,
    /// The engine hung up while the large image was on its way.
    pub(crate) hung_up: Arc<AtomicBool>,
}

/// What is at a path.
struct Item {
    kind: &'static str,
    body: Vec<u8>,
    digest: String,
}

/// What it has, by path, and where the layer is that never comes to its end.
struct Shelf {
    items: BTreeMap<String, Item>,
    endless: String,
    hung_up: Arc<AtomicBool>,
}

impl Registry {
    pub(crate) fn start(dir: &Path) -> Registry {
        let dir = dir.join("registry");
        std::fs::create_dir_all(dir.join("root/etc")).unwrap();
        std::fs::write(dir.join("root/etc/of-the-registry"), "yes\n").unwrap();
        let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let digest = |bytes: &[u8]| {
            std::fs::write(path("blob"), bytes).unwrap();
            format!("sha256:{}", run("sha256sum", &[&path("blob")]).split(' ').next().unwrap())
        };
        run("tar", &["-C", &path("root"), "--owner=0", "--group=0", "-cf", &path("layer.tar"), "."]);
        let plain = digest(&std::fs::read(path("layer.tar")).unwrap());
        run("gzip", &["-nf", &path("layer.tar")]);
        let layer = std::fs::read(path("layer.tar.gz")).unwrap();
        let config = serde_json::json!({
            "architecture": if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }, "os": "linux", "config": {},
            "rootfs": { "type": "layers", "diff_ids": [plain] },
        });
        let config = config.to_string().into_bytes();
        let endless = format!("sha256:{}", "0".repeat(64));

        let mut items = BTreeMap::new();
        for (name, layer_digest, size) in
            [("small", digest(&layer), layer.len() as u64), ("large", endless.clone(), LARGE)]
        {
            let manifest = serde_json::json!({
                "schemaVersion": 2, "mediaType": MANIFEST,
                "config": {
                    "mediaType": "application/vnd.docker.container.image.v1+json",
                    "size": config.len(), "digest": digest(&config),
                },
                "layers": [{
                    "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
                    "size": size, "digest": layer_digest,
                }],
            });
            let manifest = manifest.to_string().into_bytes();
            let mut put = |path: String, kind, body: &[u8]| {
                items.insert(path, Item { kind, body: body.to_vec(), digest: digest(body) });
            };
            put(format!("/v2/{name}/manifests/1"), MANIFEST, &manifest);
            put(format!("/v2/{name}/manifests/{}", digest(&manifest)), MANIFEST, &manifest);
            put(format!("/v2/{name}/blobs/{}", digest(&config)), BLOB, &config);
            put(format!("/v2/{name}/blobs/{}", digest(&layer)), BLOB, &layer);
        }
        let hung_up = Arc::new(AtomicBool::new(false));
        let endless = format!("/v2/large/blobs/{endless}");
        let shelf = Arc::new(Shelf { items, endless, hung_up: hung_up.clone() });
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let at = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shelf = shelf.clone();
                // The engine asks by TLS first, which is no request: that connection just ends.
                std::thread::spawn(move || serve(&stream, &shelf));
            }
        });
        Registry { at, hung_up }
    }
}

/// Answers requests until the other side hangs up.
fn serve(stream: &TcpStream, shelf: &Shelf) -> Option<()> {
    let mut lines = BufReader::new(stream).lines();
    loop {
        let request = lines.next()?.ok()?;
        while !lines.next()?.ok()?.is_empty() {}
        let mut words = request.split(' ');
        let (method, path) = (words.next()?, words.next()?);
        answer(stream, shelf, method == "HEAD", path)?;
    }
}

#[expect(clippy::disallowed_methods, reason = "a thread of its own, on which no actor runs")]
fn answer(mut stream: &TcpStream, shelf: &Shelf, head_only: bool, path: &str) -> Option<()> {
    let head = |status: &str, kind: &str, length: u64, digest: &str| {
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nDocker-Content-Digest: {digest}\r\n\r\n"
        )
    };
    if path == shelf.endless {
        stream.write_all(head("200 OK", BLOB, LARGE, "").as_bytes()).ok()?;
        let chunk = vec![7; 1 << 16];
        for _ in 0..LARGE / (1 << 16) {
            if stream.write_all(&chunk).is_err() {
                shelf.hung_up.store(true, Ordering::SeqCst);
                return None;
            }
            // As a network would: the engine's disk need not hold much of it.
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        return None;
    }
    let (status, kind, body, digest) = match shelf.items.get(path) {
        Some(item) => ("200 OK", item.kind, item.body.as_slice(), item.digest.as_str()),
        None if path == "/v2/" => ("200 OK", "application/json", &b"{}"[..], ""),
        None => ("404 Not Found", "application/json", &b"{\"errors\":[]}"[..], ""),
    };
    stream.write_all(head(status, kind, body.len() as u64, digest).as_bytes()).ok()?;
    if head_only { Some(()) } else { stream.write_all(body).ok() }
}
