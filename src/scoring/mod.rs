//! Verdicts over time become scores, scores become weights.
