//! What the control socket answers when it does not do what was asked: a closed set of codes, each with an HTTP status.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, ResponseError};
use serde::{Deserialize, Serialize};

use crate::messages::validator::allocation_manager::RentError;
use crate::runtime::AskError;

/// Why a request was not carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// The request cannot be read, or asks for something that makes no sense.
    Invalid,
    /// The request is larger than the socket takes.
    TooLarge,
    /// The caller is another user of this machine.
    Forbidden,
    /// There is no such path.
    NoSuchPath,
    /// A node of this role does not do this.
    WrongRole,
    /// The node knows no such thing.
    NotFound,
    /// No lease has this id.
    UnknownLease,
    /// The lease's id belongs to another wish.
    OtherWish,
    /// No miner has enough proved and free devices.
    NoneFree,
    /// The miner refused.
    PeerRefused,
    /// The miner did not answer in time; what was begun is finished or taken back in the background.
    NoAnswer,
    /// The node's database did not take the record, so nothing was done.
    Journal,
    /// The node's present state does not allow it.
    Refused,
    /// The part of the node that does this starts, is being restarted or has too much to do.
    Unavailable,
}

impl Code {
    /// Every code.
    pub const ALL: &'static [Code] = &[
        Code::Invalid,
        Code::TooLarge,
        Code::Forbidden,
        Code::NoSuchPath,
        Code::WrongRole,
        Code::NotFound,
        Code::UnknownLease,
        Code::OtherWish,
        Code::NoneFree,
        Code::PeerRefused,
        Code::NoAnswer,
        Code::Journal,
        Code::Refused,
        Code::Unavailable,
    ];

    /// The HTTP status that goes with it.
    pub fn status(self) -> StatusCode {
        match self {
            Code::Invalid => StatusCode::BAD_REQUEST,
            Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Code::Forbidden => StatusCode::FORBIDDEN,
            Code::NoSuchPath | Code::NotFound | Code::UnknownLease => StatusCode::NOT_FOUND,
            Code::WrongRole | Code::Refused | Code::OtherWish | Code::NoneFree => StatusCode::CONFLICT,
            Code::PeerRefused | Code::NoAnswer => StatusCode::BAD_GATEWAY,
            Code::Journal | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

/// A code with what happened and what to do. In JSON: `{"error": {"code": …, "message": …, "remedy": …}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct ControlError {
    /// The kind of error.
    pub code: Code,
    /// What happened, as a lower-case fragment.
    pub message: String,
    /// What to do about it; empty when nothing.
    pub remedy: String,
    /// The same for a renter's program, where it is about a rental.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rent: Option<Box<RentError>>,
}

/// The body of an answer that is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorReply {
    /// The error.
    pub error: ControlError,
}

impl ControlError {
    /// An error of this kind.
    pub fn new(code: Code, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        ControlError { code, message: message.into(), remedy: remedy.into(), rent: None }
    }
    /// The request makes no sense.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(Code::Invalid, message, "see compute-register --help")
    }
}

impl ResponseError for ControlError {
    fn status_code(&self) -> StatusCode {
        self.code.status()
    }
    fn error_response(&self) -> HttpResponse {
        HttpResponse::build(self.status_code()).json(ErrorReply { error: self.clone() })
    }
}

impl From<AskError> for ControlError {
    fn from(error: AskError) -> Self {
        let remedy = match error {
            AskError::Overloaded | AskError::Deadline => "ask again; the actors' state is in `actors`",
            AskError::Crashed => "the actor is being restarted, ask again",
            AskError::Gone => "the node is ending",
        };
        Self::new(Code::Unavailable, error.to_string(), remedy)
    }
}

impl From<RentError> for ControlError {
    fn from(error: RentError) -> Self {
        let (code, remedy) = match &error {
            RentError::Invalid(_) => (Code::Invalid, "change the request"),
            RentError::NoneFree(_) => (Code::NoneFree, "wait for the next judged epoch or ask for less; see `table`"),
            RentError::Refused(_) => (Code::PeerRefused, "ask again under a new id: another miner may be chosen"),
            RentError::OtherWish(_) => (Code::OtherWish, "choose a new id"),
            RentError::Draining(_) => (Code::Refused, "ask again when the operator ends it"),
            RentError::Busy => (Code::Unavailable, "ask again"),
            RentError::Unavailable(_) => (Code::Unavailable, "ask again with the same id"),
            RentError::NoAnswer(_) => (Code::NoAnswer, "look at the lease, then ask again"),
            RentError::NotChanged(_) => (Code::Refused, "see the miner's words and `compute-register list ID`"),
            RentError::UnknownLease => (Code::UnknownLease, "see `leases`"),
            RentError::Journal(_) => (Code::Journal, "see the node's log and its disk"),
        };
        ControlError { rent: Some(Box::new(error.clone())), ..Self::new(code, error.to_string(), remedy) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_renters_program_gets_back_the_very_error_of_the_validator() {
        let error = RentError::NoneFree("2 × cpu-1".into());
        let text = serde_json::to_string(&ErrorReply { error: error.clone().into() }).unwrap();
        let read: ErrorReply = serde_json::from_str(&text).unwrap();
        assert_eq!(read.error.rent.as_deref(), Some(&error));
    }

    #[test]
    fn every_code_has_a_status_of_its_kind_and_reads_back() {
        for code in Code::ALL {
            assert!(code.status().is_client_error() || code.status().is_server_error(), "{code:?}");
            let reply = ErrorReply { error: ControlError::new(*code, "m", "r") };
            let text = serde_json::to_string(&reply).unwrap();
            assert_eq!(serde_json::from_str::<ErrorReply>(&text).unwrap(), reply);
        }
    }
}
