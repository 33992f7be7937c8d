//! Settings that may change while a node runs: values that are read at the time of use.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

use super::Settings;

/// A value that follows the settings in force. Cheap to clone; read it when it is needed, and keep what was read for as
/// long as it must not change (a round, a request).
pub struct Live<T>(Arc<dyn Fn() -> T + Send + Sync>);

impl<T> Live<T> {
    /// The value now.
    pub fn get(&self) -> T {
        (self.0)()
    }
}

impl<T> Live<T> {
    /// A value that is worked out each time it is read.
    pub fn from_fn(read: impl Fn() -> T + Send + Sync + 'static) -> Self {
        Live(Arc::new(read))
    }
}

impl<T: Clone + Send + Sync + 'static> Live<T> {
    /// A value that never changes.
    pub fn fixed(value: T) -> Self {
        Live(Arc::new(move || value.clone()))
    }
}

impl<T> Clone for Live<T> {
    fn clone(&self) -> Self {
        Live(self.0.clone())
    }
}

impl<T: fmt::Debug> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&self.get()).finish()
    }
}

/// The settings in force, published to a whole node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LiveSettings(watch::Receiver<Arc<Settings>>);

impl LiveSettings {
    /// Settings with the sender that replaces them.
    pub fn new(settings: Arc<Settings>) -> (watch::Sender<Arc<Settings>>, Self) {
        let (sender, receiver) = watch::channel(settings);
        (sender, LiveSettings(receiver))
    }

    /// The settings now.
    pub fn get(&self) -> Arc<Settings> {
        self.0.borrow().clone()
    }

    /// A value that is read from the settings each time.
    pub fn value<T: 'static>(&self, read: impl Fn(&Settings) -> T + Send + Sync + 'static) -> Live<T> {
        let settings = self.0.clone();
        Live::from_fn(move || read(&settings.borrow()))
    }

    /// A value that is worked out once for each change of the settings. The lock is never held across a wait.
    pub fn derived<T: Send + Sync + 'static>(
        &self,
        work_out: impl Fn(&Settings) -> T + Send + Sync + 'static,
    ) -> Live<Arc<T>> {
        let settings = self.clone();
        let known: Mutex<Option<(Arc<Settings>, Arc<T>)>> = Mutex::new(None);
        Live(Arc::new(move || {
            let now = settings.get();
            let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
            match &*known {
                Some((of, value)) if Arc::ptr_eq(of, &now) => value.clone(),
                _ => {
                    let value = Arc::new(work_out(&now));
                    *known = Some((now, value.clone()));
                    value
                }
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::super::{Cli, Role, load};
    use super::*;

    fn settings(samples: &str) -> Arc<Settings> {
        let env = [("HOME".to_owned(), "/home/op".to_owned())];
        Arc::new(load(Role::Validator, &Cli::default().with_key("challenge.samples", samples), env).unwrap().settings)
    }

    #[test]
    fn a_value_follows_the_settings_and_is_worked_out_once_for_each_change() {
        let (sender, live) = LiveSettings::new(settings("5"));
        let (samples, times) = (live.value(|s| s.challenge.samples), Arc::new(AtomicU32::new(0)));
        let counted = times.clone();
        let twice = live.derived(move |s| {
            counted.fetch_add(1, Ordering::Relaxed);
            s.challenge.samples * 2
        });
        assert_eq!((samples.get(), *twice.get(), *twice.get()), (5, 10, 10));
        sender.send_replace(settings("7"));
        assert_eq!((samples.get(), *twice.clone().get()), (7, 14));
        assert_eq!(times.load(Ordering::Relaxed), 2);
        assert_eq!(Live::fixed(3).get(), 3);
    }
}
