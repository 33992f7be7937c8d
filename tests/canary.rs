//! The login of a canary against a real SSH server with SFTP in this process, and the real prover as the program: the pinned
//! key, the upload, the run.
#![expect(clippy::unwrap_used, reason = "helpers of tests: a panic is the failure")]

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use compute_subnet::actors::validator::verifiers::Verifiers;
use compute_subnet::canary::original::Original;
use compute_subnet::canary::ssh::{Ssh, fresh_key};
use compute_subnet::canary::{
    Access, Fault, Landlord, Limits, Login, Others, Outcome, Plan, Reason, Remote as _, Rented, Stage, Task, Tools,
    drive,
};
use compute_subnet::clock::SystemClock;
use compute_subnet::ids::{DeviceId, Hotkey, LeaseId};
use compute_subnet::proof::Work;
use compute_subnet::wallet::Keypair;
use compute_subnet::wire::dendrite::{Dendrite, Peer};
use compute_subnet::wire::synapse::original::RenterKey;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::{PrivateKey, PublicKey};
use russh::server::{Auth, ChannelOpenHandle, Handler, Msg, Session, VerifiedPublicKey};
use russh::{Channel, ChannelId};
use russh_sftp::protocol::{Attrs, Data, FileAttributes, Handle, OpenFlags, Status, StatusCode, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// What the server does otherwise than it should.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Quirk {
    #[default]
    None,
    /// It has no SFTP.
    NoSftp,
    /// Its disk is full after so many bytes.
    Full(u64),
    /// A bit of each file changes.
    Rots,
    /// It runs no programs.
    NoExec,
    /// What is uploaded cannot be run, as on a file system without that right.
    NotExecutable,
    /// Programs are killed when they have begun to answer.
    Kills,
}

/// An SSH server whose `/tmp` is a directory of ours.
#[derive(Clone)]
struct Server {
    tmp: PathBuf,
    tenant: Arc<Mutex<Option<PublicKey>>>,
    password: Option<&'static str>,
    quirk: Quirk,
    /// Programs that run.
    running: Arc<Semaphore>,
    channels: Arc<Mutex<HashMap<ChannelId, Channel<Msg>>>>,
}

const PROGRAMS: usize = 1000;

impl Server {
    fn new(tmp: &Path, quirk: Quirk) -> Self {
        Server {
            tmp: tmp.to_owned(),
            tenant: Arc::default(),
            password: None,
            quirk,
            running: Arc::new(Semaphore::new(PROGRAMS)),
            channels: Arc::default(),
        }
    }

    fn admit(&self, key: &PublicKey) {
        *self.tenant.lock().unwrap() = Some(key.clone());
    }

    /// Serves on a port of its own with the key of this seed.
    async fn serve(&self, seed: u8) -> (SocketAddr, String) {
        let key = host_key(seed);
        let public = key.public_key().to_openssh().unwrap();
        let config = russh::server::Config {
            keys: vec![key],
            auth_rejection_time: Duration::from_millis(10),
            ..russh::server::Config::default()
        };
        let (config, listener) = (Arc::new(config), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let addr = listener.local_addr().unwrap();
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let each = Server { channels: Arc::default(), ..server.clone() };
                let config = config.clone();
                tokio::spawn(async move {
                    if let Ok(session) = russh::server::run_stream(config, stream, each).await {
                        let _ = session.await;
                    }
                });
            }
        });
        (addr, public)
    }

    fn local(&self, path: &str) -> PathBuf {
        self.tmp.join(path.strip_prefix("/tmp/").unwrap())
    }
}

fn host_key(seed: u8) -> PrivateKey {
    PrivateKey::new(KeypairData::Ed25519(Ed25519Keypair::from_seed(&[seed; 32])), "").unwrap()
}

impl Handler for Server {
    type Error = russh::Error;

    async fn auth_publickey(&mut self, user: &str, key: VerifiedPublicKey<'_>) -> Result<Auth, russh::Error> {
        let known = self.tenant.lock().unwrap().as_ref().is_some_and(|k| k.key_data() == key.public_key.key_data());
        Ok(if known && user == "root" { Auth::Accept } else { Auth::reject() })
    }

    async fn auth_password(&mut self, _: &str, password: &str) -> Result<Auth, russh::Error> {
        Ok(if self.password == Some(password) { Auth::Accept } else { Auth::reject() })
    }

    async fn channel_open_session(
        &mut self,
        channel: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut Session,
    ) -> Result<(), russh::Error> {
        self.channels.lock().unwrap().insert(channel.id(), channel);
        reply.accept().await;
        Ok(())
    }

    async fn subsystem_request(
        &mut self,
        id: ChannelId,
        name: &str,
        session: &mut Session,
    ) -> Result<(), russh::Error> {
        if name != "sftp" || self.quirk == Quirk::NoSftp {
            session.channel_failure(id)?;
            return session.close(id);
        }
        let channel = self.channels.lock().unwrap().remove(&id).unwrap();
        session.channel_success(id)?;
        let files = Files { server: self.clone(), open: HashMap::new(), next: 0 };
        russh_sftp::server::run(channel.into_stream(), files).await;
        Ok(())
    }

    async fn exec_request(&mut self, id: ChannelId, command: &[u8], session: &mut Session) -> Result<(), russh::Error> {
        if self.quirk == Quirk::NoExec {
            return session.channel_failure(id);
        }
        let command = String::from_utf8(command.to_vec()).unwrap();
        let mut words = command.split(' ');
        let program = self.local(words.next().unwrap());
        let channel = self.channels.lock().unwrap().remove(&id).unwrap();
        session.channel_success(id)?;
        let spawned = tokio::process::Command::new(program)
            .args(words)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn();
        let (mut incoming, outgoing) = channel.split();
        let mut child = match spawned {
            Ok(child) => child,
            Err(error) => {
                tokio::spawn(async move {
                    let _ = outgoing.extended_data_bytes(1, format!("sh: {error}").into_bytes()).await;
                    let _ = outgoing.exit_status(126).await;
                    let _ = outgoing.close().await;
                });
                return Ok(());
            }
        };
        let kills = self.quirk == Quirk::Kills;
        let place = self.running.clone().acquire_owned().await.unwrap();
        tokio::spawn(async move {
            let mut stdin = child.stdin.take().unwrap();
            let mut stdout = child.stdout.take().unwrap();
            let feeding = async {
                while let Some(message) = incoming.wait().await {
                    match message {
                        russh::ChannelMsg::Data { data } => {
                            // A program that does not read any more is seen to end by its output.
                            let _ = stdin.write_all(&data).await;
                        }
                        russh::ChannelMsg::Eof | russh::ChannelMsg::Close => break,
                        _ => {}
                    }
                }
                drop(stdin);
            };
            let telling = async {
                let mut buffer = vec![0u8; 32 * 1024];
                while let Ok(count @ 1..) = stdout.read(&mut buffer).await {
                    if outgoing.data_bytes(buffer[..count].to_vec()).await.is_err() || kills {
                        break;
                    }
                }
            };
            let fed = async {
                feeding.await;
                std::future::pending::<()>().await;
            };
            // Its output ends when it does.
            tokio::select! { () = telling => {}, () = fed => {} }
            if kills {
                let _ = child.start_kill();
            }
            let status = child.wait().await.unwrap().code().unwrap_or(137);
            let _ = outgoing.exit_status(u32::try_from(status).unwrap()).await;
            let _ = outgoing.close().await;
            drop(place);
        });
        Ok(())
    }
}

/// SFTP over the server's directory, as far as an upload needs it.
struct Files {
    server: Server,
    open: HashMap<String, (std::fs::File, PathBuf)>,
    next: u32,
}

fn done(id: u32) -> Result<Status, StatusCode> {
    Ok(Status { id, status_code: StatusCode::Ok, error_message: String::new(), language_tag: String::new() })
}

impl russh_sftp::server::Handler for Files {
    type Error = StatusCode;

    fn unimplemented(&self) -> StatusCode {
        StatusCode::OpUnsupported
    }
    async fn init(&mut self, _: u32, _: HashMap<String, String>) -> Result<Version, StatusCode> {
        Ok(Version::new())
    }
    async fn open(&mut self, id: u32, name: String, flags: OpenFlags, _: FileAttributes) -> Result<Handle, StatusCode> {
        let path = self.server.local(&name);
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(flags.contains(OpenFlags::WRITE)).create_new(flags.contains(OpenFlags::EXCLUDE));
        let file = options.mode(0o600).open(&path).map_err(|_| StatusCode::Failure)?;
        self.next += 1;
        let handle = self.next.to_string();
        self.open.insert(handle.clone(), (file, path));
        Ok(Handle { id, handle })
    }
    async fn write(&mut self, id: u32, handle: String, at: u64, data: Vec<u8>) -> Result<Status, StatusCode> {
        let (file, _) = &self.open[&handle];
        if matches!(self.server.quirk, Quirk::Full(most) if at + data.len() as u64 > most) {
            return Err(StatusCode::Failure);
        }
        file.write_all_at(&data, at).map_err(|_| StatusCode::Failure)?;
        done(id)
    }
    async fn read(&mut self, id: u32, handle: String, at: u64, most: u32) -> Result<Data, StatusCode> {
        let (file, _) = &self.open[&handle];
        let mut data = vec![0u8; most as usize];
        let count = file.read_at(&mut data, at).map_err(|_| StatusCode::Failure)?;
        data.truncate(count);
        if count == 0 { Err(StatusCode::Eof) } else { Ok(Data { id, data }) }
    }
    async fn close(&mut self, id: u32, handle: String) -> Result<Status, StatusCode> {
        let (file, path) = self.open.remove(&handle).ok_or(StatusCode::Failure)?;
        if self.server.quirk == Quirk::Rots {
            let mut byte = [0u8];
            let _ = std::fs::File::open(&path).unwrap().read_at(&mut byte, 1000);
            let _ = file.write_all_at(&[byte[0] ^ 4], 1000);
        }
        done(id)
    }
    async fn setstat(&mut self, id: u32, path: String, attributes: FileAttributes) -> Result<Status, StatusCode> {
        let mode = match self.server.quirk {
            Quirk::NotExecutable => 0o600,
            _ => attributes.permissions.unwrap() & 0o777,
        };
        let permissions = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.server.local(&path), permissions).map_err(|_| StatusCode::Failure)?;
        done(id)
    }
    async fn stat(&mut self, id: u32, path: String) -> Result<Attrs, StatusCode> {
        let size = std::fs::metadata(self.server.local(&path)).map_err(|_| StatusCode::NoSuchFile)?.len();
        Ok(Attrs { id, attrs: FileAttributes { size: Some(size), ..FileAttributes::empty() } })
    }
}

/// A house with one room: the server.
struct House {
    server: Server,
    addr: SocketAddr,
    /// The key that the miner tells.
    told: Option<String>,
    password: Option<&'static str>,
    rented: Mutex<BTreeSet<LeaseId>>,
}

#[async_trait]
impl Landlord for House {
    async fn rent(&self, plan: &Plan) -> Result<Rented, Fault> {
        let login = match self.password {
            Some(password) => Login::Password(password.into()),
            None => {
                let (login, public) = fresh_key()?;
                self.server.admit(&PublicKey::from_openssh(&public).unwrap());
                login
            }
        };
        assert!(self.rented.lock().unwrap().insert(plan.id));
        let access = Access { addr: self.addr, user: "root".into(), login, host_key: self.told.clone() };
        Ok(Rented { access })
    }
    async fn release(&self, id: LeaseId) -> Result<(), Fault> {
        self.rented.lock().unwrap().remove(&id);
        Ok(())
    }
}

const LIMITS: Limits = Limits {
    allocate: Duration::from_secs(30),
    login: Duration::from_secs(30),
    upload: Duration::from_secs(60),
    run: Duration::from_secs(30),
    verify: Duration::from_secs(30),
    release: Duration::from_secs(30),
    samples: 8,
};

struct Scene {
    _tmp: tempfile::TempDir,
    server: Server,
    house: Arc<House>,
    tools: Tools,
}

async fn scene(quirk: Quirk, program: &[u8]) -> Scene {
    let tmp = tempfile::tempdir().unwrap();
    let server = Server::new(tmp.path(), quirk);
    let (addr, key) = server.serve(1).await;
    let house = House { server: server.clone(), addr, told: Some(key), password: None, rented: Mutex::default() };
    let house = Arc::new(house);
    let tools = Tools {
        landlord: house.clone(),
        remote: Arc::new(Ssh),
        program: Arc::from(program),
        verifiers: Verifiers::new(2),
        models: Arc::default(),
        witness: Arc::new(Others::default()),
    };
    Scene { _tmp: tmp, server, house, tools }
}

fn prover() -> Vec<u8> {
    std::fs::read(env!("CARGO_BIN_EXE_compute-prover")).unwrap()
}

fn plan(number: u8) -> Plan {
    let work = Work::new(64, 128, 2).unwrap();
    let task = |device| Task { device: DeviceId::cpu(device), work, floor_ops: None };
    Plan { id: LeaseId([number; 16]), miner: Hotkey([7; 32]), tasks: vec![task(0), task(1)] }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_real_prover_is_uploaded_whole_and_proves_every_device_over_ssh() {
    let scene = scene(Quirk::None, &prover()).await;
    let report = drive(&scene.tools, &LIMITS, &plan(1)).await;
    assert_eq!(report.outcome, Outcome::Pass, "{report:?}");
    assert_eq!((report.proved.len(), report.host_key_pinned), (2, true));
    let files: Vec<PathBuf> = std::fs::read_dir(&scene.server.tmp).unwrap().map(|f| f.unwrap().path()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    assert_eq!(std::fs::read(file).unwrap(), prover());
    assert_eq!(std::fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o700);
    assert!(scene.house.rented.lock().unwrap().is_empty());
    // With the login everything ends that was started through it.
    let ended = scene.server.running.acquire_many(PROGRAMS as u32);
    let _all = tokio::time::timeout(Duration::from_secs(60), ended).await.expect("a prover is left running").unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_with_another_key_than_the_miner_told_never_sees_a_login() {
    let scene = scene(Quirk::None, b"x").await;
    let other = host_key(2).public_key().to_openssh().unwrap();
    for (told, reason) in [(other.as_str(), Reason::WrongHostKey), ("no key at all", Reason::NoHostKey)] {
        let (login, public) = fresh_key().unwrap();
        scene.server.admit(&PublicKey::from_openssh(&public).unwrap());
        let access =
            Access { addr: scene.house.addr, user: "root".into(), login: login.clone(), host_key: Some(told.into()) };
        let refused = Ssh.login(&access).await.err().unwrap();
        assert_eq!(refused.reason, reason, "{refused}");
        // The same login with the right key, and where no key was told at all.
        for told in [scene.house.told.clone(), None] {
            Ssh.login(&Access { host_key: told, ..access.clone() }).await.map(drop).unwrap();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tenant_that_the_server_does_not_know_is_refused_and_a_closed_port_is_told_as_one() {
    let scene = scene(Quirk::None, b"x").await;
    let (login, _) = fresh_key().unwrap();
    let access = Access { addr: scene.house.addr, user: "root".into(), login, host_key: scene.house.told.clone() };
    assert_eq!(Ssh.login(&access).await.err().unwrap().reason, Reason::LoginRefused);
    let guess = Access { login: Login::Password("guess".into()), ..access.clone() };
    let refused = Ssh.login(&guess).await.err().unwrap();
    assert!(refused.reason == Reason::LoginRefused && !refused.to_string().contains("guess"), "{refused}");

    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert_eq!(Ssh.login(&Access { addr: closed, ..access }).await.err().unwrap().reason, Reason::Unreachable);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_opens_as_well_where_no_key_was_told() {
    let tmp = tempfile::tempdir().unwrap();
    let server = Server { password: Some("Xq4"), ..Server::new(tmp.path(), Quirk::None) };
    let (addr, _) = server.serve(3).await;
    let house = House { server, addr, told: None, password: Some("Xq4"), rented: Mutex::default() };
    let tools = Tools {
        landlord: Arc::new(house),
        remote: Arc::new(Ssh),
        program: Arc::from(prover()),
        verifiers: Verifiers::new(2),
        models: Arc::default(),
        witness: Arc::new(Others::default()),
    };
    let report = drive(&tools, &LIMITS, &plan(1)).await;
    assert_eq!((report.outcome, report.host_key_pinned), (Outcome::Pass, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_does_otherwise_is_told_with_its_stage() {
    let program = prover();
    let cases = [
        (Quirk::NoSftp, Stage::Upload, Reason::NoTransfer),
        (Quirk::Full(1 << 16), Stage::Upload, Reason::NoTransfer),
        (Quirk::Rots, Stage::Upload, Reason::Altered),
        (Quirk::NoExec, Stage::Run, Reason::NotStarted),
        (Quirk::NotExecutable, Stage::Run, Reason::NotStarted),
        (Quirk::Kills, Stage::Run, Reason::EndedEarly),
    ];
    for (quirk, stage, reason) in cases {
        let scene = scene(quirk, &program).await;
        let limits = Limits { upload: Duration::from_secs(30), ..LIMITS };
        let report = drive(&scene.tools, &limits, &plan(1)).await;
        let Outcome::Fail { stage: at, reason: why, detail } = &report.outcome else { panic!("{quirk:?}: {report:?}") };
        assert_eq!((*at, *why), (stage, reason), "{quirk:?}: {detail}");
        assert!(scene.house.rented.lock().unwrap().is_empty() && report.failed.is_empty(), "{quirk:?}");
    }
    // A file that is no program at all.
    let scene = scene(Quirk::None, b"hello").await;
    let report = drive(&scene.tools, &LIMITS, &plan(1)).await;
    assert_eq!((report.outcome.stage(), report.outcome.reason()), (Stage::Run, Some(Reason::NotStarted)));
}

/// A miner with the original's manners: its axon, and the container's SSH server if there is one.
#[derive(Clone, Default)]
struct OldMiner {
    manners: Manners,
    ssh_port: u16,
    password: &'static str,
    /// The text of the key that owns the rental.
    owner: Arc<Mutex<Option<String>>>,
    /// What was asked, by mode.
    asked: Arc<Mutex<Vec<&'static str>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Manners {
    #[default]
    Fine,
    /// Somebody else rents it.
    Rented,
    /// `status: false`, as for everything that goes wrong there.
    Refuses,
    /// It says nothing at all.
    Empty,
    /// `status: true` without credentials.
    NoInfo,
    /// Credentials for another key.
    OtherKey,
    /// `status: true` with credentials, and no container.
    NoContainer,
    /// Its reply to the return is lost, and the next one is `status: false`: it has forgotten the rental.
    ForgetsReturns,
    /// It never ends the rental.
    Keeps,
}

impl OldMiner {
    fn seal(&self, pem: &str) -> String {
        use base64::Engine as _;
        use rsa::pkcs8::DecodePublicKey as _;
        let key = match self.manners {
            Manners::OtherKey => rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048).unwrap().to_public_key(),
            _ => rsa::RsaPublicKey::from_public_key_pem(pem).unwrap(),
        };
        let login = serde_json::json!({
            "username": "root", "password": self.password, "port": self.ssh_port, "version": 183,
        });
        let padding = rsa::Oaep::new::<sha2::Sha256>();
        let hidden = key.encrypt(&mut rsa::rand_core::OsRng, padding, login.to_string().as_bytes()).unwrap();
        base64::engine::general_purpose::STANDARD.encode(hidden)
    }

    /// The original's table of modes; `None` drops the connection.
    fn output(&self, body: &serde_json::Value) -> Option<serde_json::Value> {
        let key = body["public_key"].as_str().unwrap().trim().to_owned();
        let (checking, days) = (body["checking"].as_bool().unwrap(), body["timeline"].as_i64().unwrap());
        let mut owner = self.owner.lock().unwrap();
        let mode = match (checking, days > 0) {
            (true, true) => "probe",
            (true, false) => "owns",
            (false, true) => "allocate",
            (false, false) => "deallocate",
        };
        self.asked.lock().unwrap().push(mode);
        let status = |status: bool| serde_json::json!({"status": status, "port": self.ssh_port});
        Some(match mode {
            "probe" => {
                assert!(key.is_empty(), "an owner's key is nobody's business before the rental");
                status(owner.is_none() && self.manners != Manners::Rented)
            }
            "owns" => status(owner.as_ref() == Some(&key)),
            "allocate" => match self.manners {
                Manners::Refuses => status(false),
                Manners::Empty => serde_json::json!({}),
                _ => {
                    assert_eq!(
                        body["device_requirement"]["testing"],
                        serde_json::Value::Null,
                        "it would be told by that"
                    );
                    let info = (self.manners != Manners::NoInfo).then(|| self.seal(&key));
                    *owner = Some(key);
                    let mut output = status(true);
                    if let Some(info) = info {
                        output["info"] = info.into();
                    }
                    output
                }
            },
            _ if self.manners == Manners::Keeps => status(false),
            _ if owner.as_ref() == Some(&key) => {
                *owner = None;
                if self.manners == Manners::ForgetsReturns {
                    return None;
                }
                status(true)
            }
            _ => status(false),
        })
    }

    async fn serve(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let miner = self.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let miner = miner.clone();
                tokio::spawn(async move { miner.answer(&mut stream).await });
            }
        });
        addr
    }

    /// One request for each connection, as much of HTTP as that takes.
    async fn answer(&self, stream: &mut tokio::net::TcpStream) {
        let mut request = Vec::new();
        let (head, length) = loop {
            let mut chunk = [0; 4096];
            let count = stream.read(&mut chunk).await.unwrap();
            if count == 0 {
                return;
            }
            request.extend_from_slice(&chunk[..count]);
            if let Some(head) = request.windows(4).position(|four| four == b"\r\n\r\n") {
                let text = String::from_utf8(request[..head].to_vec()).unwrap().to_lowercase();
                assert!(text.starts_with("post /allocate http/1.1"), "{text}");
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                break (head + 4, length.trim().parse::<usize>().unwrap());
            }
        };
        while request.len() < head + length {
            let mut chunk = [0; 4096];
            let count = stream.read(&mut chunk).await.unwrap();
            request.extend_from_slice(&chunk[..count]);
        }
        let mut body: serde_json::Value = serde_json::from_slice(&request[head..]).unwrap();
        let Some(output) = self.output(&body) else { return };
        body["output"] = output;
        body["axon"]["status_code"] = 200.into();
        body["axon"]["status_message"] = "Success".into();
        let body = body.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            body.len()
        );
        let _ = stream.write_all((head + &body).as_bytes()).await;
    }
}

/// A canary at an old miner, with a real SSH server for a container unless its manners say that there is none.
async fn at_old_miner(manners: Manners, key: &Arc<RenterKey>) -> (compute_subnet::canary::Report, OldMiner) {
    let tmp = tempfile::tempdir().unwrap();
    let server = Server { password: Some("aB3dE5gH7j"), ..Server::new(tmp.path(), Quirk::None) };
    let (mut at, _) = server.serve(5).await;
    if manners == Manners::NoContainer {
        at = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    }
    let miner = OldMiner { manners, ssh_port: at.port(), password: "aB3dE5gH7j", ..OldMiner::default() };
    let peer = Peer { hotkey: Hotkey([7; 32]), addr: miner.serve().await };
    let caller = Keypair::from_uri("//Alice").unwrap();
    let dendrite = Dendrite::new(caller, Arc::new(SystemClock), None).unwrap();
    let tools = Tools {
        landlord: Arc::new(Original::renting(dendrite, peer, key.clone(), LIMITS.allocate)),
        remote: Arc::new(Ssh),
        program: Arc::from(prover()),
        verifiers: Verifiers::new(2),
        models: Arc::default(),
        witness: Arc::new(Others::default()),
    };
    (drive(&tools, &LIMITS, &plan(1)).await, miner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_miner_of_the_original_is_rented_by_its_protocol_and_named_by_the_stage_that_it_fails() {
    let key = Arc::new(tokio::task::spawn_blocking(RenterKey::generate).await.unwrap().unwrap());
    let (report, miner) = at_old_miner(Manners::Fine, &key).await;
    assert_eq!(report.outcome, Outcome::Pass, "{report:?}");
    assert_eq!((report.proved.len(), report.host_key_pinned, &report.unreleased), (2, false, &None));
    assert_eq!(*miner.asked.lock().unwrap(), ["probe", "allocate", "deallocate"]);

    use Manners as M;
    let cases = [
        (M::Rented, "unknown", Stage::Allocate, Reason::NotFree),
        (M::Refuses, "unknown", Stage::Allocate, Reason::Refused),
        (M::Empty, "unknown", Stage::Allocate, Reason::Refused),
        (M::NoInfo, "fail", Stage::Allocate, Reason::NoLogin),
        (M::OtherKey, "fail", Stage::Allocate, Reason::NoLogin),
        (M::NoContainer, "fail", Stage::Login, Reason::Unreachable),
    ];
    for (manners, label, stage, reason) in cases {
        let (report, miner) = at_old_miner(manners, &key).await;
        let came_to = (report.outcome.label(), report.outcome.stage(), report.outcome.reason());
        assert_eq!(came_to, (label, stage, Some(reason)), "{manners:?}: {report:?}");
        assert_eq!((report.unreleased, report.failed.len()), (None, 0), "{manners:?}");
        assert_eq!(*miner.owner.lock().unwrap(), None, "{manners:?}: it is left rented");
    }

    let (report, miner) = at_old_miner(M::ForgetsReturns, &key).await;
    assert_eq!((report.outcome, report.unreleased), (Outcome::Pass, None));
    assert_eq!(*miner.owner.lock().unwrap(), None);
    let (report, miner) = at_old_miner(M::Keeps, &key).await;
    assert_eq!(report.outcome, Outcome::Pass, "what it is rented out as is another matter");
    assert_eq!(report.unreleased.map(|fault| fault.reason), Some(Reason::Refused));
    assert!(miner.owner.lock().unwrap().is_some());
}
