//! The *legacy profile*: what the original's programs expect of a container beside a login.
//!
//! Its validators run `/opt/conda/bin/python` with torch and numpy over SSH, keep files in `/tmp` and `/dev/shm`, and take a
//! single byte on standard error for a failure. Login and SFTP are `compute-sshd`'s, in any image; all else is the image's. So
//! an image is tried: a container of it, which has no network, no GPU and no rights, looks around in itself and is gone. The
//! image is the operator's own choice, as is everything that runs in it.

use std::collections::HashMap;
use std::time::Duration;

use bollard::container::LogOutput;
use bollard::models::{ContainerCreateBody, HostConfig, HostConfigLogConfig};
use bollard::query_parameters::{AttachContainerOptions, CreateContainerOptions, RemoveContainerOptions};
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout};

use super::DockerEngine;
use super::fault::{Fault, one_line};
use super::session::{CHANGE, Session, within};
use crate::lease::engine::EngineError;

/// Where the original's validators look for the interpreter.
pub const INTERPRETER: &str = "/opt/conda/bin/python";
/// What the interpreter is told to run.
const PROGRAM: &str = include_str!("profile.py");
/// What it must report as well, in its order.
const NEEDED: &[&str] = &["python", "python3", "shell", "/tmp", "/dev/shm", "numpy", "torch"];
/// How long it may take: torch is read from a disk that nobody has read it from yet.
const LONGEST: Duration = Duration::from_secs(180);
/// The most of each stream that is read, bytes.
const MOST: usize = 64 << 10;
/// Bounds of the container: memory in bytes, processes and threads.
const MEMORY: i64 = 4 << 30;
const PIDS: i64 = 1024;
/// Whose trial a container is. Not a label of leases: no list of theirs shows it.
const LABEL: &str = "compute-subnet.profile";

/// What became of a trial: what was found, or what is missing.
pub type Verdict = Result<String, String>;

/// An image that was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tried {
    /// What was asked for: a name of `docker.images`, a reference, or nothing for the default.
    pub wish: String,
    /// The digest of the content.
    pub id: String,
    /// Whether it meets the profile.
    pub verdict: Verdict,
}

impl DockerEngine {
    /// Tries the image that a wish means; `None` where it is not there yet. Nothing is pulled, and nothing is left behind.
    ///
    /// # Errors
    /// [`EngineError::Image`] where policy refuses it; others where the engine does not do what is asked.
    pub async fn try_image(&self, wish: &str) -> Result<Option<Tried>, EngineError> {
        let session = self.connection.session().await?;
        let Some(id) = self.id_of(&session, wish).await? else { return Ok(None) };
        let verdict = self.verdict(&session, &id).await?;
        Ok(Some(Tried { wish: wish.to_owned(), id, verdict }))
    }

    /// Tries the image of the original's callers, unless this very one was tried before. Whoever asks
    /// [`crate::lease::ContainerEngine::tried`] sees what came of it.
    pub(super) async fn try_original(&self) -> Result<(), EngineError> {
        let Some(wish) = &self.options.original_image else { return Ok(()) };
        let session = self.connection.session().await?;
        let Some(id) = self.id_of(&session, wish).await? else { return Ok(()) };
        if self.tried.borrow().as_ref().is_some_and(|tried| tried.id == id) {
            return Ok(());
        }
        let verdict = self.verdict(&session, &id).await?;
        match &verdict {
            Ok(found) => tracing::info!(image = wish, found, "the image of the original's callers is what they expect"),
            Err(why) => tracing::error!(
                image = wish,
                why,
                "the image of the original's callers (leases.original_image) lacks what their validators need: their tests are \
                 refused, see docs/legacy.md"
            ),
        }
        self.tried.send_replace(Some(Tried { wish: wish.clone(), id, verdict }));
        Ok(())
    }

    async fn id_of(&self, session: &Session, wish: &str) -> Result<Option<String>, EngineError> {
        let image = |why: String| EngineError::Image { image: one_line(wish), why };
        let reference = self.options.images.resolve(wish).map_err(image)?;
        match self.pulls.there(session, &reference).await {
            Ok(None) => Ok(None),
            Ok(Some(id)) => id.map(Some).map_err(image),
            Err(fault) => Err(self.fault(fault).await.reading("looking for the image")),
        }
    }

    async fn verdict(&self, session: &Session, id: &str) -> Result<Verdict, EngineError> {
        // One that ended goes by itself, in its own time: a name is never used again.
        let number = getrandom::u64().map_err(|error| EngineError::Refused(format!("no randomness: {error}")))?;
        let name = format!("compute-profile-{number:016x}");
        let labels = HashMap::from([(LABEL.to_owned(), self.options.miner.to_string())]);
        let options = CreateContainerOptions { name: Some(name.clone()), ..CreateContainerOptions::default() };
        let made = within(CHANGE, session.docker.create_container(Some(options), body(id, labels))).await;
        if let Err(fault) = made {
            return Err(self.fault(fault).await.changing("making a container that tries the image"));
        }
        let seen = run(session, &name).await;
        self.removed_trial(session, &name).await?;
        match seen {
            Ok(Seen::Said { out, err }) => Ok(judge(&out, &err)),
            Ok(Seen::NotStarted(why)) => Ok(Err(format!("{INTERPRETER} cannot be started: {why}"))),
            Ok(Seen::Late) => Ok(Err(format!("{INTERPRETER} did not end within {LONGEST:?}"))),
            Err(fault) => Err(self.fault(fault).await.changing("trying the image")),
        }
    }

    async fn removed_trial(&self, session: &Session, name: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptions { force: true, v: true, ..RemoveContainerOptions::default() };
        match within(CHANGE, session.docker.remove_container(name, Some(options))).await {
            // It may have gone by itself, or be on its way.
            Ok(()) | Err(Fault::Missing(_) | Fault::Conflict(_)) => Ok(()),
            Err(fault) => Err(self.fault(fault).await.changing("removing the container that tried the image")),
        }
    }
}

/// What was seen of a trial.
enum Seen {
    /// What it printed until it ended.
    Said { out: String, err: String },
    /// The interpreter is not one.
    NotStarted(String),
    /// It did not end in time.
    Late,
}

async fn run(session: &Session, name: &str) -> Result<Seen, Fault> {
    // Before the start, so that nothing is missed.
    let options =
        AttachContainerOptions { stream: true, stdout: true, stderr: true, ..AttachContainerOptions::default() };
    let mut streams = within(CHANGE, session.docker.attach_container(name, Some(options))).await?.output;
    match within(CHANGE, session.docker.start_container(name, None)).await {
        Ok(()) => {}
        // The engine made it, so it is the image that cannot.
        Err(Fault::Missing(why) | Fault::Refused(why) | Fault::Failed(why)) => return Ok(Seen::NotStarted(why)),
        Err(fault) => return Err(fault),
    }
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let end = Instant::now() + LONGEST;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        match timeout(left, streams.next()).await {
            Err(_) => return Ok(Seen::Late),
            Ok(None) => break,
            Ok(Some(Err(error))) => return Err(Fault::of(error)),
            Ok(Some(Ok(LogOutput::StdErr { message }))) => keep(&mut err, &message),
            Ok(Some(Ok(LogOutput::StdOut { message }))) => keep(&mut out, &message),
            Ok(Some(Ok(_))) => {}
        }
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Seen::Said { out: text(&out), err: text(&err) })
}

fn keep(kept: &mut Vec<u8>, more: &[u8]) {
    let room = MOST.saturating_sub(kept.len()).min(more.len());
    kept.extend_from_slice(&more[..room]);
}

/// The request: nothing but the image is given to it.
fn body(image: &str, labels: HashMap<String, String>) -> ContainerCreateBody {
    let texts = |texts: &[&str]| Some(texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
    ContainerCreateBody {
        image: Some(image.to_owned()),
        user: Some("0:0".to_owned()),
        entrypoint: texts(&[INTERPRETER]),
        cmd: texts(&["-c", PROGRAM]),
        // Where NVIDIA's runtime is the engine's default, what the image asks of it would be given to it.
        env: texts(&["NVIDIA_VISIBLE_DEVICES=void"]),
        network_disabled: Some(true),
        labels: Some(labels),
        host_config: Some(HostConfig {
            // Gone with its process, also when nobody is there to remove it.
            auto_remove: Some(true),
            network_mode: Some("none".to_owned()),
            memory: Some(MEMORY),
            memory_swap: Some(MEMORY),
            pids_limit: Some(PIDS),
            cap_drop: texts(&["ALL"]),
            security_opt: texts(&["no-new-privileges"]),
            privileged: Some(false),
            ipc_mode: Some("private".to_owned()),
            log_config: Some(HostConfigLogConfig { typ: Some("none".to_owned()), ..HostConfigLogConfig::default() }),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}

/// Judges what the program printed. Pure.
fn judge(out: &str, err: &str) -> Verdict {
    let line = |name: &str| {
        out.lines().find_map(|line| {
            let (state, rest) = line.split_once(' ')?;
            let (found, value) = rest.split_once(' ').unwrap_or((rest, ""));
            (found == name).then_some((state == "ok", value))
        })
    };
    let mut missing: Vec<String> = Vec::new();
    if !err.trim().is_empty() {
        missing.push(format!("it prints to standard error: {}", one_line(err)));
    }
    for name in NEEDED {
        match line(name) {
            Some((true, _)) => {}
            Some((false, why)) => missing.push(format!("{name}: {}", one_line(why))),
            None => missing.push(format!("{name}: it said nothing of it")),
        }
    }
    if !missing.is_empty() {
        return Err(missing.join("; "));
    }
    let found = |name: &str| line(name).map_or("", |(_, value)| value);
    Ok(one_line(&format!("Python {}, torch {}, numpy {}", found("python"), found("torch"), found("numpy"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WELL: &str = "ok python 3.11.10\nok python3 /opt/conda/bin/python3\nok shell /bin/bash\nok /tmp /tmp\nok /dev/shm /dev/shm\n\
                        ok numpy 2.1.2\nok torch 2.5.1+cu124\n";

    #[test]
    fn an_image_that_has_everything_meets_the_profile() {
        assert_eq!(judge(WELL, ""), Ok("Python 3.11.10, torch 2.5.1+cu124, numpy 2.1.2".to_owned()));
        assert_eq!(judge(WELL, " \n"), judge(WELL, ""));
    }

    #[test]
    fn a_byte_on_standard_error_is_a_failure_as_it_is_to_the_originals_validators() {
        let why = judge(WELL, "bash: warning: setlocale\n").unwrap_err();
        assert_eq!(why, "it prints to standard error: bash: warning: setlocale");
    }

    #[test]
    fn everything_that_is_missing_is_named_at_once() {
        let out = WELL.replace("ok torch 2.5.1+cu124", "no torch ModuleNotFoundError: No module named 'torch'");
        let out = out.replace("ok shell /bin/bash\n", "");
        let why = judge(&out, "").unwrap_err();
        assert_eq!(why, "shell: it said nothing of it; torch: ModuleNotFoundError: No module named 'torch'");
        let nothing = judge("", "").unwrap_err();
        assert!(NEEDED.iter().all(|name| nothing.contains(name)), "{nothing}");
    }

    #[test]
    fn what_an_image_prints_stays_one_bounded_line() {
        let noise = format!("{}\n\u{1b}[31m", "x".repeat(100_000));
        let why = judge(WELL, &noise).unwrap_err();
        assert!(why.len() < 1_000 && !why.contains(['\n', '\u{1b}']), "{why}");
        let mut kept = Vec::new();
        (0..40).for_each(|_| keep(&mut kept, &[b'x'; 4_096]));
        assert_eq!(kept.len(), MOST);
    }

    #[test]
    fn the_container_that_looks_has_no_network_no_rights_and_bounds() {
        let body = body("sha256:1", HashMap::new());
        let host = body.host_config.unwrap();
        assert_eq!((host.network_mode.as_deref(), host.privileged), (Some("none"), Some(false)));
        assert_eq!((host.memory, host.pids_limit, host.auto_remove), (Some(MEMORY), Some(PIDS), Some(true)));
        assert_eq!(host.cap_drop.unwrap(), ["ALL"]);
        assert!(host.binds.is_none() && host.mounts.is_none() && host.device_requests.is_none());
        assert_eq!(body.entrypoint.unwrap(), [INTERPRETER]);
        assert_eq!(body.env.unwrap(), ["NVIDIA_VISIBLE_DEVICES=void"]);
    }
}
