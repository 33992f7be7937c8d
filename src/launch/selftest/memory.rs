//! The memory of a device against its row. The place of the memory proof: what is told is compared here, nothing is proved yet.

use super::report::{Line, Status, gib};
use crate::hardware::OfferedDevice;
use crate::scoring::ModelRow;

/// The line about a device's memory; none where its row says nothing of it.
pub(super) fn figure(check: String, offer: &OfferedDevice, row: &ModelRow) -> Option<Line> {
    let floor = row.memory?.floor;
    let line = Line::ok(check, format!("{} told", gib(offer.memory_bytes)))
        .against(format!("floor {}, not proved here", gib(floor)));
    Some(match offer.memory_bytes < floor {
        true => line.needs(
            Status::Warn,
            "a memory proof of this model would not fit: is it the model it says, is ECC or a MIG split on?",
        ),
        false => line,
    })
}
