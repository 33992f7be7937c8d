//! A table that never grows: what is worth least makes room.
//!
//! A key may lie in one of the [`WAYS`] places of its set, which a keyed hash chooses, so that nobody outside can aim at
//! a set. A new key takes a free place of it, or that of the entry that is worth least there: a million strangers seen
//! once replace each other, and not the one that was seen often. Every operation looks at one set.

use std::hash::{BuildHasher, Hash, RandomState};

/// Places of a set.
const WAYS: usize = 8;

/// What an entry is worth against others of its set.
pub(super) trait Worth {
    /// The entry that is worth least makes room; one that is worth 0 is as good as gone.
    fn worth(&self, now_ms: u64) -> u64;
}

#[derive(Debug)]
pub(super) struct Table<K, V> {
    hasher: RandomState,
    sets: usize,
    entries: Vec<Option<(K, V)>>,
}

impl<K: Copy + Eq + Hash, V: Default + Worth> Table<K, V> {
    /// A table of this many entries, rounded up to whole sets.
    pub(super) fn new(entries: usize) -> Self {
        let sets = entries.div_ceil(WAYS).max(1);
        Table { hasher: RandomState::new(), sets, entries: std::iter::repeat_with(|| None).take(sets * WAYS).collect() }
    }

    fn set(&self, key: &K) -> std::ops::Range<usize> {
        // The remainder is below the number of sets.
        let first = (self.hasher.hash_one(key) % self.sets as u64) as usize * WAYS;
        first..first + WAYS
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        self.entries[self.set(key)].iter().flatten().find(|(k, _)| k == key).map(|(_, value)| value)
    }

    /// The entry of this key, a new one if there is none.
    pub(super) fn entry(&mut self, key: K, now_ms: u64) -> &mut V {
        let range = self.set(&key);
        let set = &mut self.entries[range];
        let at = set.iter().position(|e| matches!(e, Some((k, _)) if *k == key)).unwrap_or_else(|| {
            let worth = |e: &Option<(K, V)>| e.as_ref().map(|(_, value)| value.worth(now_ms));
            // A free place is worth less than any entry.
            let least = set.iter().enumerate().min_by_key(|(_, e)| worth(e)).map_or(0, |(at, _)| at);
            set[least] = None;
            least
        });
        &mut set[at].get_or_insert_with(|| (key, V::default())).1
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.entries.iter().flatten().count()
    }
    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.entries.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Count(u64);
    impl Worth for Count {
        fn worth(&self, _: u64) -> u64 {
            self.0
        }
    }

    #[test]
    fn a_million_strangers_replace_each_other_and_not_the_one_seen_often() {
        let mut table: Table<u32, Count> = Table::new(1000);
        let room = table.capacity();
        for _ in 0..5 {
            table.entry(7, 0).0 += 1;
        }
        for stranger in 1_000_000..2_000_000 {
            table.entry(stranger, 0).0 += 1;
        }
        assert_eq!(table.get(&7).map(|c| c.0), Some(5));
        assert_eq!((table.capacity(), table.len()), (room, 1000));
    }
}
