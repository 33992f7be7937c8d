//! What an [`Allocate`] asks for.

use super::Allocate;

/// The modes of [`Allocate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// Is the machine free? The answer is `true` for a free one, so whoever checks on a rental hopes for `false`.
    Probe,
    /// Does this key own a container that runs?
    Owns,
    /// Change a key in the container.
    ExchangeKey,
    /// Start the container anew.
    Restart,
    /// Stop it for now.
    Pause,
    /// Let it run again.
    Unpause,
    /// Something else that is to be done with the container: a later version's word.
    OtherAction,
    /// Rent the machine.
    Allocate,
    /// Return it.
    Deallocate,
}

impl Mode {
    /// Every mode.
    pub const ALL: &'static [Mode] = &[
        Mode::Probe,
        Mode::Owns,
        Mode::ExchangeKey,
        Mode::Restart,
        Mode::Pause,
        Mode::Unpause,
        Mode::OtherAction,
        Mode::Allocate,
        Mode::Deallocate,
    ];

    /// The mode of a request.
    pub fn of(request: &Allocate) -> Mode {
        let for_a_time = request.timeline > 0;
        match (request.checking, request.docker_change) {
            (true, _) if for_a_time => Mode::Probe,
            (true, _) => Mode::Owns,
            (false, true) => match request.docker_action.action() {
                "exchange_key" => Mode::ExchangeKey,
                "restart" => Mode::Restart,
                "pause" => Mode::Pause,
                "unpause" | "resume" => Mode::Unpause,
                _ => Mode::OtherAction,
            },
            (false, false) if for_a_time => Mode::Allocate,
            (false, false) => Mode::Deallocate,
        }
    }

    /// Its name in logs: snake case, stable.
    pub fn label(self) -> &'static str {
        match self {
            Mode::Probe => "probe",
            Mode::Owns => "owns",
            Mode::ExchangeKey => "exchange_key",
            Mode::Restart => "restart",
            Mode::Pause => "pause",
            Mode::Unpause => "unpause",
            Mode::OtherAction => "other_action",
            Mode::Allocate => "allocate",
            Mode::Deallocate => "deallocate",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_row_of_the_originals_table_is_its_mode() {
        #[rustfmt::skip]
        let table = [
            // checking, timeline, docker_change, action
            (true,   1, false, "",             Mode::Probe),
            (true,  30, true,  "restart",      Mode::Probe),
            (true,   0, false, "",             Mode::Owns),
            (true,  -1, true,  "pause",        Mode::Owns),
            (false,  1, true,  "exchange_key", Mode::ExchangeKey),
            (false,  0, true,  "exchange_key", Mode::ExchangeKey),
            (false,  0, true,  "restart",      Mode::Restart),
            (false,  0, true,  "pause",        Mode::Pause),
            (false,  0, true,  "unpause",      Mode::Unpause),
            (false,  9, true,  "resume",       Mode::Unpause),
            (false,  0, true,  "",             Mode::OtherAction),
            (false,  1, true,  "Restart",      Mode::OtherAction),
            (false,  1, true,  "defragment",   Mode::OtherAction),
            (false,  1, false, "",             Mode::Allocate),
            (false, 60, false, "restart",      Mode::Allocate),
            (false,  0, false, "",             Mode::Deallocate),
            (false, -5, false, "pause",        Mode::Deallocate),
        ];
        for (checking, timeline, docker_change, action, mode) in table {
            let body = json!({
                "checking": checking, "timeline": timeline, "docker_change": docker_change,
                "docker_action": {"action": action},
            });
            let request: Allocate = serde_json::from_value(body.clone()).unwrap();
            assert_eq!(Mode::of(&request), mode, "{body}");
        }
        assert_eq!(Mode::of(&Allocate::default()), Mode::Owns);
    }

    #[test]
    fn labels_differ() {
        let labels: std::collections::BTreeSet<_> = Mode::ALL.iter().map(|m| m.label()).collect();
        assert_eq!(labels.len(), Mode::ALL.len());
    }
}
