//! A rented container within this process: the real prover's serving side behind a login that needs no network, and every
//! fault that a canary must name. Devnets without a container engine and tests use it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::watch;

use super::reason::{Fault, Reason};
use super::remote::{Access, Ended, Process, Remote, Session};
use crate::proof::frames::{self, Frame};
use crate::proof::prover::{Backend, cuda, serve};

/// Bytes of a pipe.
const PIPE: usize = 64 * 1024;

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The port is closed.
    Closed,
    /// The server has another key.
    OtherKey,
    /// The server takes no tenant.
    NoLogin,
    /// The login never ends.
    LoginHangs,
    /// There is no room for files.
    NoRoom,
    /// Files are not what was written.
    Altered,
    /// The upload never ends.
    UploadHangs,
    /// Programs cannot be run.
    NotRun,
    /// The program dies before it has roots.
    Dies,
    /// It says nothing, for ever.
    Silent,
    /// It says something that is no answer.
    Babble,
    /// It opens what it did not commit.
    WrongOpenings,
    /// It goes away when it is to open.
    NoOpenings,
    /// It says nothing any more when it is to open.
    SilentAtOpenings,
}

impl Trouble {
    /// Every one.
    pub const ALL: [Trouble; 14] = [
        Trouble::Closed,
        Trouble::OtherKey,
        Trouble::NoLogin,
        Trouble::LoginHangs,
        Trouble::NoRoom,
        Trouble::Altered,
        Trouble::UploadHangs,
        Trouble::NotRun,
        Trouble::Dies,
        Trouble::Silent,
        Trouble::Babble,
        Trouble::WrongOpenings,
        Trouble::NoOpenings,
        Trouble::SilentAtOpenings,
    ];
}

/// Containers without a network.
#[derive(Debug, Clone, Default)]
pub struct SimulatedRemote {
    trouble: Arc<Mutex<Option<Trouble>>>,
}

impl SimulatedRemote {
    /// From now on this goes wrong, or nothing.
    pub fn set_trouble(&self, trouble: Option<Trouble>) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
    }
    fn trouble(&self) -> Option<Trouble> {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Remote for SimulatedRemote {
    async fn login(&self, _: &Access) -> Result<Box<dyn Session>, Fault> {
        let trouble = self.trouble();
        match trouble {
            Some(Trouble::Closed) => Err(Fault::new(Reason::Unreachable, "simulated")),
            Some(Trouble::OtherKey) => Err(Fault::new(Reason::WrongHostKey, "simulated")),
            Some(Trouble::NoLogin) => Err(Fault::new(Reason::LoginRefused, "simulated")),
            Some(Trouble::LoginHangs) => std::future::pending().await,
            _ => Ok(Box::new(SimulatedSession { trouble })),
        }
    }
}

struct SimulatedSession {
    trouble: Option<Trouble>,
}

#[async_trait]
impl Session for SimulatedSession {
    async fn upload(&self, _: &[u8]) -> Result<(), Fault> {
        match self.trouble {
            Some(Trouble::NoRoom) => Err(Fault::new(Reason::NoTransfer, "simulated")),
            Some(Trouble::Altered) => Err(Fault::new(Reason::Altered, "simulated")),
            Some(Trouble::UploadHangs) => std::future::pending().await,
            _ => Ok(()),
        }
    }

    async fn start(&self, arguments: &[&str]) -> Result<Process, Fault> {
        let (end, ended) = watch::channel(None);
        let (mut out, stdout) = tokio::io::duplex(PIPE);
        let surveys = arguments == ["report-cuda"];
        let (stdin, input) = tokio::io::duplex(PIPE);
        let trouble = self.trouble;
        tokio::spawn(async move {
            let done = Ended { status: Some(0), words: String::new() };
            let how = match trouble {
                None if surveys => {
                    let text = serde_json::to_vec(&cuda::report()).unwrap_or_default();
                    let _ = out.write_all(&text).await;
                    done
                }
                Some(Trouble::NotRun) => Ended { status: Some(126), words: "permission denied".to_owned() },
                Some(Trouble::Silent) => {
                    // Until nobody waits for it any more.
                    end.closed().await;
                    done
                }
                Some(Trouble::Babble) => {
                    let _ = out.write_all(&frames::PROVER_HELLO).await;
                    let _ = out.write_all(b"Welcome to this machine!").await;
                    end.closed().await;
                    done
                }
                Some(Trouble::Dies | Trouble::WrongOpenings | Trouble::NoOpenings | Trouble::SilentAtOpenings) => {
                    let (ours, theirs) = tokio::io::duplex(PIPE);
                    let prover = tokio::spawn(serve(input, theirs, Backend::Cpu));
                    tamper(trouble, ours, &mut out).await;
                    prover.abort();
                    if trouble == Some(Trouble::SilentAtOpenings) {
                        end.closed().await;
                    }
                    Ended { status: None, words: "killed".to_owned() }
                }
                _ => {
                    let served = serve(input, &mut out, Backend::Cpu);
                    // It ends with its input, as the real one does.
                    match tokio::time::timeout(Duration::from_secs(600), served).await {
                        Ok(Ok(())) => done,
                        _ => Ended { status: Some(65), words: "the pipe failed".to_owned() },
                    }
                }
            };
            end.send_replace(Some(how));
        });
        Ok(Process { stdout: Box::new(stdout), stdin: Box::new(stdin), ended })
    }
}

/// Hands the prover's words on until the one that is to go wrong.
async fn tamper(trouble: Option<Trouble>, mut from: tokio::io::DuplexStream, to: &mut tokio::io::DuplexStream) {
    if frames::read_hello(&mut from, frames::PROVER_HELLO).await.is_err()
        || to.write_all(&frames::PROVER_HELLO).await.is_err()
    {
        return;
    }
    while let Ok(Some(frame)) = frames::read_frame(&mut from, frames::MAX_BODY).await {
        let frame = match (frame, trouble) {
            (Frame::Roots { .. }, Some(Trouble::Dies)) => return,
            (Frame::Openings { .. }, Some(Trouble::NoOpenings | Trouble::SilentAtOpenings)) => return,
            (Frame::Openings { mut bytes }, _) => {
                if let Some(first) = bytes.first_mut() {
                    *first ^= 1;
                }
                Frame::Openings { bytes }
            }
            (frame, _) => frame,
        };
        if frames::write_frame(to, &frame).await.is_err() {
            return;
        }
    }
}
