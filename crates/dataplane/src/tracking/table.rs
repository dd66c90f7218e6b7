//! Which clients are to be told when a key changes.
//!
//! The rule it keeps: a client that has read a key is in the table until it is told that the key has changed, and so
//! it is when its place is needed for another key. Who has left is found there no longer than that.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::reactor::Handle;

/// A key; the table and its order share the bytes.
pub(crate) type Key = Arc<[u8]>;

/// A key that never changes is rid of readers that have left when it has so many, and twice as many as then, and so on.
const MANY: usize = 64;

struct Entry {
    /// Where the key stands in the order.
    place: usize,
    readers: HashSet<Handle>,
    /// So many readers are looked through for those that have left.
    most: usize,
}

impl Entry {
    fn add(&mut self, reader: Handle, is_there: impl Fn(Handle) -> bool) {
        if self.readers.insert(reader) && self.readers.len() >= self.most {
            self.readers.retain(|&reader| is_there(reader));
            self.most = MANY.max(2 * self.readers.len());
        }
    }
}

/// Keys and who has read them.
pub(crate) struct Table {
    entries: HashMap<Key, Entry>,
    order: Vec<Key>,
    /// Whose turn it is to make room.
    hand: usize,
    most: usize,
}

impl Table {
    /// With room for so many keys.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            entries: HashMap::new(),
            order: Vec::new(),
            hand: 0,
            most,
        }
    }

    /// The client reads this key. If another key had to make room, that is given back with its readers.
    pub(crate) fn note(
        &mut self,
        key: &Key,
        reader: Handle,
        is_there: impl Fn(Handle) -> bool,
    ) -> Option<(Key, HashSet<Handle>)> {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.add(reader, is_there);
            return None;
        }
        let evicted = (self.order.len() >= self.most).then(|| {
            self.hand = (self.hand + 1) % self.order.len();
            let key = self.order[self.hand].clone();
            let readers = self.forget(&key);
            (key, readers)
        });
        let entry = Entry {
            place: self.order.len(),
            readers: HashSet::from([reader]),
            most: MANY,
        };
        self.order.push(key.clone());
        self.entries.insert(key.clone(), entry);
        evicted
    }

    /// The key has changed: who has read it is to be told, and is forgotten.
    pub(crate) fn forget(&mut self, key: &[u8]) -> HashSet<Handle> {
        let Some(entry) = self.entries.remove(key) else {
            return HashSet::new();
        };
        self.order.swap_remove(entry.place);
        if let Some(moved) = self.order.get(entry.place)
            && let Some(entry_of_moved) = self.entries.get_mut(moved)
        {
            entry_of_moved.place = entry.place;
        }
        entry.readers
    }

    /// Everything has changed.
    pub(crate) fn clear(&mut self) {
        self.entries = HashMap::new();
        self.order = Vec::new();
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn those_that_have_left_do_not_pile_up() {
        let mut table = Table::new(1);
        let key = [1][..].into();
        for number in 0..100_000 {
            table.note(&key, client(number), |it| it.index % 1000 == 0);
            assert!(table.entries[&key].readers.len() <= 2 * 100 + MANY);
        }
        let told = table.forget(&key);
        assert!((0..100).all(|number| told.contains(&client(1000 * number))));
    }

    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::{Handle, MANY, Table};

    fn client(index: u32) -> Handle {
        Handle { index, id: index }
    }

    proptest! {
        /// Whatever is read and changes: each reader is told of each key, by its change or by its eviction.
        #[test]
        fn every_reader_is_told(steps in prop::collection::vec((any::<bool>(), 0_u8..12, 0_u32..3), 0..300)) {
            let mut table = Table::new(5);
            let mut reading: BTreeMap<u8, BTreeSet<u32>> = BTreeMap::new();
            for (reads, key, reader) in steps {
                if reads {
                    let evicted = table.note(&[key][..].into(), client(reader), |_| true);
                    if let Some((other, readers)) = evicted {
                        let told: BTreeSet<u32> = readers.iter().map(|it| it.index).collect();
                        prop_assert_eq!(reading.remove(&other[0]), Some(told));
                    }
                    reading.entry(key).or_default().insert(reader);
                } else {
                    let readers = table.forget(&[key]);
                    let told: BTreeSet<u32> = readers.iter().map(|it| it.index).collect();
                    prop_assert_eq!(reading.remove(&key).unwrap_or_default(), told);
                }
                prop_assert!(table.order.len() <= 5);
                prop_assert_eq!(table.order.len(), reading.len());
            }
        }
    }
}
