//! Faults on demand, and the control lane they travel on.

use super::state::State;
use std::time::Duration;
use tokio::sync::oneshot;

/// A fault that a drill or a test injects into a running actor with
/// [`TreeView::inject`](super::TreeView::inject). It strikes inside the incarnation's own turn, through its context,
/// so any actor can be hit without a line of code in it. Never exposed to peers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Panics, as a bug in a handler would. The actor restarts with cause `panic`.
    Panic,
    /// Calls [`Ctx::fail`](super::Ctx::fail). The actor restarts with cause `error`.
    Error,
    /// Waits on a future that never ends. The monitor restarts the actor with cause `unresponsive`.
    Deaf,
    /// Blocks the actor's thread for this long. Longer than silence limit and probe timeout together: the node
    /// ends as [`Exit::Wedged`](crate::exit::Exit::Wedged).
    Block(Duration),
}

/// What a cell is told from outside. Polled before the actor, so it cannot queue behind messages.
#[derive(Debug)]
pub(crate) enum Control {
    /// Answered with the state by any cell whose thread turns.
    Probe(oneshot::Sender<State>),
    /// Replace the incarnation, if it is still silent for that long.
    Restart { if_silent_for: Duration },
    /// Refuse new messages, finish the admitted ones, end; `done` hears of it.
    Drain { deadline: Duration, done: oneshot::Sender<bool> },
    /// Strike the incarnation in its next turn.
    Inject(Fault),
}

/// Commands a cell's control lane holds. A cell that is this far behind does not turn.
pub(crate) const CONTROL_LANE: usize = 32;
