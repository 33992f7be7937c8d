//! Hotkey files.
