//! Which clients are to be told when a key changes.
//!
//! The rule it keeps: a client that has read a key is in the table until it is told that the key has changed, and so
//! it is when its place is needed for another key. Who has left is found there no longer than that.

use std::collections::HashMap;
use std::sync::Arc;

use crate::reactor::Handle;

/// A key; the table and its order share the bytes.
pub(crate) type Key = Arc<[u8]>;

struct Entry {
    /// Where the key stands in the order.
    place: usize,
    readers: Vec<Handle>,
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
    pub(crate) fn note(&mut self, key: &Key, reader: Handle) -> Option<(Key, Vec<Handle>)> {
        if let Some(entry) = self.entries.get_mut(key) {
            if !entry.readers.contains(&reader) {
                entry.readers.push(reader);
            }
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
            readers: vec![reader],
        };
        self.order.push(key.clone());
        self.entries.insert(key.clone(), entry);
        evicted
    }

    /// The key has changed: who has read it is to be told, and is forgotten.
    pub(crate) fn forget(&mut self, key: &[u8]) -> Vec<Handle> {
        let Some(entry) = self.entries.remove(key) else {
            return Vec::new();
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
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::{Handle, Table};

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
                    let evicted = table.note(&[key][..].into(), client(reader));
                    if let Some((other, readers)) = evicted {
                        let told: BTreeSet<u32> = readers.iter().map(|it| it.index).collect();
                        prop_assert_eq!(reading.remove(&other[0]), Some(told));
                    }
                    reading.entry(key).or_default().insert(reader);
                } else {
                    let readers = table.forget(&[key]);
                    let told: BTreeSet<u32> = readers.iter().map(|it| it.index).collect();
                    prop_assert_eq!(told.len(), readers.len());
                    prop_assert_eq!(reading.remove(&key).unwrap_or_default(), told);
                }
                prop_assert!(table.order.len() <= 5);
                prop_assert_eq!(table.order.len(), reading.len());
            }
        }
    }
}
