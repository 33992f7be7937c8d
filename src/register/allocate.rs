//! `allocate`: rents a machine through the validator, or says who would be asked.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;

use super::leases::lease_text;
use super::text::{columns, now_ms, row};
use super::{Context, complain, failed, login, parse};
use crate::exit::Exit;
use crate::lease::Lease;
use crate::rental::requirements::parse_size;
use crate::rental::{Candidate, Requirements};
use crate::settings::duration;
use crate::web::control::api::{Candidates, RentWish};

/// Largest file that is read as a public key or as requirements, in bytes.
const MAX_FILE: u64 = 16 * 1024;

/// What is rented.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The file of your public SSH key, for example ~/.ssh/id_ed25519.pub.
    #[arg(long, value_name = "FILE", required_unless_present = "dry_run")]
    ssh_key: Option<PathBuf>,
    /// Only this model, as `table` shows it; letter case does not matter.
    #[arg(long, value_name = "MODEL")]
    gpu_model: Option<String>,
    /// How many devices, all of one miner.
    #[arg(long, default_value_t = 1, value_name = "N")]
    gpus: usize,
    /// Memory of each device, for example 80GiB.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    gpu_memory: Option<u64>,
    /// CPU cores, as the miner's specs tell.
    #[arg(long, value_name = "N")]
    cpus: Option<u32>,
    /// Memory, as the miner's specs tell.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    ram: Option<u64>,
    /// Free disk, as the miner's specs tell.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    disk: Option<u64>,
    /// All of these at once: the original's dict, as JSON, as a Python literal, or as a file of either.
    #[arg(long, value_name = "DICT|FILE", conflicts_with_all = ["gpu_model", "gpus", "gpu_memory", "cpus", "ram", "disk"])]
    requirements: Option<String>,
    /// Only this miner.
    #[arg(long, value_name = "HOTKEY")]
    miner: Option<String>,
    /// The container image; by default the miner's own.
    #[arg(long, default_value = "", hide_default_value = true)]
    image: String,
    /// How long, unless released before.
    #[arg(long, default_value = "1h", value_name = "TIME", value_parser = duration::parse)]
    duration: Duration,
    /// The lease's id, 32 hex digits of your choice: asked again with the same id, the wish is the same one.
    #[arg(long)]
    id: Option<String>,
    /// On whose behalf; by default the validator's own.
    #[arg(long, value_name = "HOTKEY")]
    renter: Option<String>,
    /// Rent nothing: say which miner would be asked first.
    #[arg(long)]
    dry_run: bool,
    /// With --dry-run: every miner, in the order in which they would be asked, with the grounds; and why others would not be.
    #[arg(long, requires = "dry_run")]
    explain: bool,
    /// Longest wait for the container.
    #[arg(long, default_value = "5m", value_name = "TIME", value_parser = duration::parse)]
    timeout: Duration,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Allocated {
    lease: Lease,
    /// The words of the command that logs in; absent if there is no login.
    #[serde(skip_serializing_if = "Option::is_none")]
    ssh: Option<Vec<String>>,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    let requirements = requirements(&args)?;
    let ssh_key = args.ssh_key.as_deref().map(public_key).transpose()?;
    let id = args.id.map(|id| parse(&id, "lease id")).transpose()?;
    let miner = args.miner.map(|miner| parse(&miner, "hotkey")).transpose()?;
    let renter = match args.renter {
        Some(renter) => parse(&renter, "hotkey")?,
        None => context.client.status().await.map_err(|e| failed(&e))?.hotkey,
    };
    let wish = RentWish {
        id,
        renter,
        miner,
        requirements,
        duration_s: args.duration.as_secs(),
        image: args.image,
        ssh_key: ssh_key.unwrap_or_default(),
    };
    if args.dry_run {
        let candidates = context.client.candidates(&wish).await.map_err(|e| failed(&e))?;
        context.answer(&candidates, |candidates| candidates_text(candidates, args.explain))?;
        return if candidates.candidates.iter().any(Candidate::fits) { Ok(()) } else { Err(Exit::Data) };
    }
    let lease = context.client.rent(&wish, args.timeout).await.map_err(|e| failed(&e))?;
    let identity = args.ssh_key.as_deref().and_then(private_key);
    let ssh = match login::prepare(&context.dir, &lease, identity.as_deref()) {
        Ok(ssh) => Some(ssh),
        // The lease runs: that is told, and what is missing as well.
        Err(error) => {
            complain(&crate::telemetry::error_chain(&error));
            None
        }
    };
    if lease.host_key.is_none() {
        complain("the miner told no host key, so it cannot be told who answers at the port");
    }
    context.answer(&Allocated { lease, ssh }, |Allocated { lease, ssh }| {
        let login = ssh.as_ref().map(|words| format!("\n{}", login::shown(words))).unwrap_or_default();
        format!("{}{login}", lease_text(lease, now_ms()))
    })
}

fn requirements(args: &Args) -> Result<Requirements, Exit> {
    let wanted = match &args.requirements {
        Some(text) => Requirements::parse(&dict(text)?),
        None => {
            let wanted = Requirements {
                devices: args.gpus,
                model: args.gpu_model.clone(),
                gpu_memory_bytes: args.gpu_memory.unwrap_or(0),
                cpus: args.cpus.unwrap_or(0),
                ram_bytes: args.ram.unwrap_or(0),
                disk_bytes: args.disk.unwrap_or(0),
            };
            wanted.check().map(|()| wanted)
        }
    };
    wanted.map_err(|error| {
        complain(&format!("these requirements cannot be served: {error}"));
        Exit::Usage
    })
}

/// The dict itself, or the text of the file that is named.
fn dict(text: &str) -> Result<String, Exit> {
    if text.trim_start().starts_with('{') {
        return Ok(text.to_owned());
    }
    read(Path::new(text)).map_err(|why| {
        complain(&format!("{text} is neither a dict nor a file that can be read: {why}"));
        Exit::Usage
    })
}

fn read(path: &Path) -> Result<String, String> {
    use std::io::Read as _;
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).map_err(|e| e.to_string())?;
    if text.len() as u64 > MAX_FILE { Err(format!("it has more than {MAX_FILE} bytes")) } else { Ok(text) }
}

/// Reads a public key's file. A private key never goes further than this.
/// The public key in this file, one line.
pub(super) fn public_key(path: &Path) -> Result<String, Exit> {
    let unusable = |why: String| {
        complain(&format!("{} cannot be used as a public SSH key: {why}", path.display()));
        Exit::Usage
    };
    let text = read(path).map_err(unusable)?;
    if text.contains("PRIVATE KEY") {
        return Err(unusable("it is the private key; the public one ends with .pub".to_owned()));
    }
    let key = text.trim();
    if key.is_empty() || key.contains('\n') {
        return Err(unusable("one line in OpenSSH's format is needed".to_owned()));
    }
    Ok(key.to_owned())
}

/// The private key that lies beside a public one, if it does: what `ssh -i` takes.
fn private_key(public: &Path) -> Option<PathBuf> {
    let private = public.with_extension("");
    (public.extension()? == "pub" && private.is_file()).then_some(private)
}

fn candidates_text(Candidates { candidates }: &Candidates, explain: bool) -> String {
    let fitting: Vec<&Candidate> = candidates.iter().filter(|c| c.fits()).collect();
    let devices = |c: &Candidate| c.devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !explain {
        return match fitting.first() {
            Some(first) => format!("uid {} {} with {}", first.uid, first.hotkey, devices(first)),
            None => format!("none of {} miners fits; --explain says why", candidates.len()),
        };
    }
    let mut rows = vec![row(["", "uid", "hotkey", "why"])];
    for (place, candidate) in fitting.iter().enumerate() {
        let mut grounds = candidate.grounds.iter().map(String::as_str).chain([""]).collect::<Vec<_>>();
        let with = format!("devices {}", devices(candidate));
        grounds.insert(grounds.len() - 1, &with);
        let (first, rest) = grounds.split_first().unwrap_or((&"", &[]));
        rows.push(row([&format!("{}.", place + 1), &candidate.uid.to_string(), &candidate.hotkey.to_string(), first]));
        rows.extend(rest.iter().filter(|ground| !ground.is_empty()).map(|ground| row(["", "", "", ground])));
    }
    for candidate in candidates.iter().filter(|c| !c.fits()) {
        let objections: Vec<String> = candidate.objections.iter().map(ToString::to_string).collect();
        let why = objections.join("; ");
        rows.push(row(["no", &candidate.uid.to_string(), &candidate.hotkey.to_string(), &why]));
    }
    if candidates.is_empty() { "no miner was judged".to_owned() } else { columns(&rows) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, Hotkey, Uid};
    use crate::rental::select::Objection;

    #[test]
    fn a_private_key_is_never_sent() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        assert_eq!(public_key(&file("a.pub", "ssh-ed25519 AAAA me\n")).unwrap(), "ssh-ed25519 AAAA me");
        assert_eq!(private_key(&dir.path().join("a.pub")), None);
        for (name, text) in [("a", "-----BEGIN OPENSSH PRIVATE KEY-----\nx\n"), ("empty", "\n"), ("two", "a\nb")] {
            assert_eq!(public_key(&file(name, text)).unwrap_err(), Exit::Usage, "{name}");
        }
        assert_eq!(private_key(&dir.path().join("a.pub")), Some(dir.path().join("a")), "but ssh is told where it lies");
    }

    #[test]
    fn requirements_are_a_dict_or_a_file_of_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wanted");
        std::fs::write(&path, "{'gpu': {'count': 2}}").unwrap();
        for text in [" {'gpu': {'count': 2}}".to_owned(), path.display().to_string()] {
            assert_eq!(Requirements::parse(&dict(&text).unwrap()).unwrap().devices, 2, "{text}");
        }
        assert_eq!(dict("nowhere").unwrap_err(), Exit::Usage);
        std::fs::write(&path, "x".repeat(17_000)).unwrap();
        assert_eq!(dict(&path.display().to_string()).unwrap_err(), Exit::Usage);
    }

    #[test]
    fn candidates_are_shown_in_their_order_with_their_grounds() {
        let candidate = |uid: u16, devices: Vec<DeviceId>, objections, grounds: &[&str]| Candidate {
            uid: Uid(uid),
            hotkey: Hotkey([uid as u8; 32]),
            devices,
            objections,
            grounds: grounds.iter().map(|g| (*g).to_owned()).collect(),
        };
        let grounds = ["trouble 0.000", "1 × cpu-1 (proved), 1 of 1 proved devices free and fitting"];
        let all = Candidates {
            candidates: vec![
                candidate(4, vec![DeviceId::cpu(0)], vec![], &grounds),
                candidate(2, vec![DeviceId::cpu(1)], vec![], &grounds),
                candidate(1, vec![], vec![Objection::NothingProved, Objection::Cpus { told: Some(4) }], &[]),
            ],
        };
        insta::assert_snapshot!("candidates", candidates_text(&all, true));
        assert!(candidates_text(&all, false).starts_with("uid 4 "));
        let none = Candidates { candidates: all.candidates[2..].to_vec() };
        assert_eq!(candidates_text(&none, false), "none of 1 miners fits; --explain says why");
        assert_eq!(candidates_text(&Candidates { candidates: vec![] }, true), "no miner was judged");
    }
}
