//! Containing a panic: its text, where it happened, and nothing on stderr.
//!
//! The panic hook is the runtime's only global. It is installed once, speaks only for threads that are inside
//! [`contain`] at that moment, and hands every other panic to the hook that was there before.

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// A panic that was caught.
#[derive(Debug)]
pub(crate) struct Caught {
    /// The panic's message.
    pub(crate) text: String,
    /// `file:line:column`, if the hook saw it.
    pub(crate) location: Option<String>,
    /// Only with `RUST_BACKTRACE` set.
    pub(crate) backtrace: Option<String>,
}

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<Option<(String, Option<String>)>> = const { RefCell::new(None) };
}

/// Installs the hook, once for the process.
pub(crate) fn install_hook() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let previous = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if !CONTAINED.get() {
                return previous(info);
            }
            let location = info.location().map(ToString::to_string).unwrap_or_default();
            let backtrace = Backtrace::capture();
            let backtrace = (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
            let _ = SEEN.try_with(|seen| *seen.borrow_mut() = Some((location, backtrace)));
        }));
    });
}

/// Runs `f`; a panic in it becomes an error. Whatever `f` could reach must be dropped by the caller in that case.
pub(crate) fn contain<T>(f: impl FnOnce() -> T) -> Result<T, Caught> {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            CONTAINED.set(self.0);
        }
    }
    let _restore = Restore(CONTAINED.replace(true));
    catch_unwind(AssertUnwindSafe(f)).map_err(|payload| {
        let (location, backtrace) = match SEEN.try_with(|seen| seen.borrow_mut().take()) {
            Ok(Some((location, backtrace))) => (Some(location).filter(|l| !l.is_empty()), backtrace),
            _ => (None, None),
        };
        Caught { text: text(payload), location, backtrace }
    })
}

fn text(payload: Box<dyn Any + Send>) -> String {
    let text = payload
        .downcast_ref::<&str>()
        .map(|s| (*s).to_owned())
        .or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "panic without text".to_owned());
    // The payload's own Drop may panic as well.
    let _ = catch_unwind(AssertUnwindSafe(move || drop(payload)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contained_panic_has_its_text_and_its_place() {
        install_hook();
        let line = line!() + 1;
        let caught = contain(|| panic!("no {}", "fuel")).expect_err("it panicked");
        assert_eq!(caught.text, "no fuel");
        let location = caught.location.expect("the hook saw it");
        assert!(location.starts_with(&format!("{}:{line}:", file!())), "{location}");
    }

    #[test]
    fn payloads_of_any_kind_are_contained_even_if_their_drop_panics() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("second panic");
            }
        }
        install_hook();
        let caught = contain(|| std::panic::panic_any(Bomb)).expect_err("it panicked");
        assert_eq!(caught.text, "panic without text");
        assert!(contain(|| 7).is_ok(), "nothing is left behind");
    }
}
