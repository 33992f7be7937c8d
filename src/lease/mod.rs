//! Rentals: the state machine, fencing epochs and the container engines.
