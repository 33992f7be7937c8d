//! Why a stage of a canary failed: a closed list, each with the side it lies on.

use serde::{Deserialize, Serialize};

use crate::telemetry::printable;
use crate::verdict::{Side, reasons};

/// Longest words kept of the other side, in bytes.
const MAX_DETAIL: usize = 300;

reasons! {
    /// Why a stage of a canary failed.
    Reason {
        NotFree = "not_free", "the devices were not free any more, or no new lease is made now", "none needed: the miner's turn comes again";
        Refused = "refused", "the miner refused the rental", "see the miner's words in the detail, and its log";
        NoAnswer = "no_answer", "the miner did not answer the rental in time", "check the load of the miner and its container engine";
        NoHostKey = "no_host_key", "the miner did not say which key the container's SSH server has", "run a container engine that tells the host key";
        NoLogin = "no_login", "the miner says that it rented, and not how to log in", "send the credentials under the key of the request";
        Unreachable = "unreachable", "the container's SSH port could not be reached", "open the SSH port of the lease to the outside: firewall, NAT, --ssh.port";
        WrongHostKey = "wrong_host_key", "the SSH server has another key than the miner said", "let nothing stand between the port and the container";
        LoginRefused = "login_refused", "the SSH server did not take the tenant's key or password", "see that the tenant's key reaches the container";
        SshFailed = "ssh_failed", "the SSH connection failed", "see the detail, and the container's SSH server";
        NoTransfer = "no_transfer", "files cannot be uploaded over SFTP", "offer SFTP in the container, and room in its /tmp";
        Altered = "altered", "what was uploaded reads back differently", "check the container's disk";
        NotStarted = "not_started", "the uploaded program does not start in the container", "see the detail; the container runs x86_64 Linux with glibc 2.17 or later, and may run files of /tmp";
        EndedEarly = "ended_early", "the program ended before it answered", "see its last words in the detail, and the limits of the container";
        Garbage = "garbage", "what the program wrote is no answer", "let nothing stand between the program and the connection";
        NoDevice = "no_device", "the rented device cannot be used in the container", "give the container the devices of its lease, with the driver";
        UnknownModel = "unknown_model", "the work of the device's model is not known", "add the row to config.yaml: scoring.gpus";
        WrongProof = "wrong_proof", "the proof that the container gave is wrong", "compute the product on the rented device";
        TooSlow = "too_slow", "the rate in the container is below the floor of the claimed model", "rent out the device that is claimed, and nothing else that uses it";
        Deadline = "deadline", "the stage did not end in its time", "check the load of the miner and the network path";
        Interrupted = "interrupted", "the validator ended, or was restarted, before the canary did", "none needed: what was rented has been given back";
        OwnFault = "own_fault", "the validator could not do its part", "see the validator's log";
    }
}

impl Reason {
    /// Whose side it lies on.
    pub fn side(self) -> Side {
        match self {
            Reason::NotFree | Reason::UnknownModel | Reason::Interrupted | Reason::OwnFault => Side::Validator,
            Reason::NoAnswer => Side::Network,
            _ => Side::Miner,
        }
    }
}

/// One failure: why, and what was seen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{}: {detail}", .reason.text())]
pub struct Fault {
    /// Why.
    pub reason: Reason,
    /// What was seen, printable and safe to publish.
    pub detail: String,
}

impl Fault {
    /// A failure; the detail may hold words of the other side, of which so much is kept as can be printed.
    pub fn new(reason: Reason, detail: impl AsRef<str>) -> Self {
        Fault { reason, detail: printable(detail.as_ref(), MAX_DETAIL) }
    }
}
