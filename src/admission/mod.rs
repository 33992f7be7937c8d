//! Who may call us, and why not.
