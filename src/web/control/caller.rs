//! Who calls: the extractor through which every path gets at the node, and the reading of bodies.

use std::future::{Ready, ready};
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpRequest, web};
use serde::de::DeserializeOwned;

use super::{Code, ControlError, ControlState, MAX_BODY, socket};
use crate::actors::listener::PeerUser;

/// How long the body of a request may take.
const BODY: Duration = Duration::from_secs(5);

/// A caller whose user may command this node. The only way to the node's state: a path cannot forget the check.
pub(super) struct Caller(Arc<ControlState>);

impl Deref for Caller {
    type Target = ControlState;
    fn deref(&self) -> &ControlState {
        &self.0
    }
}

impl FromRequest for Caller {
    type Error = ControlError;
    type Future = Ready<Result<Self, ControlError>>;
    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let own = rustix::process::geteuid().as_raw();
        let peer = request.conn_data::<PeerUser>();
        let state = request.app_data::<web::Data<Arc<ControlState>>>();
        ready(match (peer, state) {
            (Some(PeerUser(peer)), Some(state)) if socket::may_command(*peer, own) => {
                Ok(Caller(Arc::clone(state.get_ref())))
            }
            _ => Err(ControlError::new(
                Code::Forbidden,
                "only the node's own user and root may command it",
                "run this as the user that runs the node",
            )),
        })
    }
}

/// Reads a JSON body within its bounds.
pub(super) async fn body<T: DeserializeOwned>(payload: web::Payload) -> Result<T, ControlError> {
    let read = tokio::time::timeout(BODY, payload.to_bytes_limited(MAX_BODY)).await;
    let bytes = match read {
        Ok(Ok(Ok(bytes))) => bytes,
        Ok(Ok(Err(error))) => return Err(ControlError::invalid(format!("the body cannot be read: {error}"))),
        Ok(Err(_)) => {
            let message = format!("the body is larger than {MAX_BODY} bytes");
            return Err(ControlError::new(Code::TooLarge, message, "ask for less at once"));
        }
        Err(_) => return Err(ControlError::invalid(format!("the body did not arrive within {BODY:?}"))),
    };
    serde_json::from_slice(&bytes)
        .map_err(|error| ControlError::invalid(format!("the body is not as expected: {error}")))
}
