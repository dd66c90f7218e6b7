//! Commands of server modules, of which only the pool's settings know where their keys are.
//!
//! Owns what the settings say of one, and the row that is made of it, which is used like a row of the table.
//! Such rows live as long as the process: there are only as many as different ones were ever configured.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::{Access, Command, Keys, Repeat, RouteKind};

/// A command that the table lacks. Positions count its name as 0, as COMMAND INFO's do; a `last_key` below 0 counts
/// from the end; without keys `first_key` is 0.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ModuleCommand {
    /// In small letters.
    pub name: String,
    pub first_key: i16,
    pub last_key: i16,
    pub key_step: i16,
    pub writes: bool,
}

const NO_KEY: &str = "the settings say that it has no key, and it would concern one shard only";

static ROWS: LazyLock<Mutex<HashMap<ModuleCommand, &'static Command>>> =
    LazyLock::new(Mutex::default);

impl ModuleCommand {
    /// What is wrong with it.
    pub(crate) fn fault(&self) -> Option<&'static str> {
        let (first, last) = (self.first_key, self.last_key);
        if super::lookup(self.name.as_bytes()).is_some() {
            Some("Shoal knows it already")
        } else if first < 0 || first == 0 && last != 0 {
            Some("its first key stands nowhere")
        } else if last >= 0 && last < first {
            Some("its last key stands before the first")
        } else if self.key_step < 1 {
            Some("its keys cannot stand on one another")
        } else {
            None
        }
    }

    /// The row for it, always the same one.
    pub(crate) fn row(&self) -> &'static Command {
        let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner);
        rows.entry(self.clone()).or_insert_with(|| {
            let (keys, route) = if self.first_key == 0 {
                (Keys::None, RouteKind::Lone(NO_KEY))
            } else {
                let keys = Keys::Range {
                    first: self.first_key,
                    last: self.last_key,
                    step: self.key_step,
                };
                (keys, RouteKind::Single)
            };
            Box::leak(Box::new(Command {
                name: Box::leak(self.name.clone().into_boxed_str()),
                arity: -(self.first_key.max(self.last_key) + 1),
                keys,
                access: if self.writes {
                    Access::Write
                } else {
                    Access::Read
                },
                repeat: if self.writes {
                    Repeat::Unsafe
                } else {
                    Repeat::Safe
                },
                route,
                guarded: false,
            }))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::ModuleCommand;

    fn command(first_key: i16, last_key: i16, key_step: i16) -> ModuleCommand {
        ModuleCommand {
            name: "json.mget".to_owned(),
            first_key,
            last_key,
            key_step,
            writes: false,
        }
    }

    #[test]
    fn what_cannot_be_is_told() {
        assert_eq!(command(1, -2, 1).fault(), None);
        assert_eq!(command(0, 0, 1).fault(), None);
        for (first, last, step) in [(-1, 1, 1), (0, 1, 1), (2, 1, 1), (1, 1, 0)] {
            assert!(command(first, last, step).fault().is_some());
        }
        let known = ModuleCommand {
            name: "get".to_owned(),
            ..command(1, 1, 1)
        };
        assert_eq!(known.fault(), Some("Shoal knows it already"));
    }

    #[test]
    fn one_definition_has_one_row_and_asks_for_the_arguments_that_it_looks_at() {
        let row = command(1, -2, 1).row();
        assert!(std::ptr::eq(row, command(1, -2, 1).row()));
        assert!(row.arity_ok(2) && !row.arity_ok(1));
        assert!(!command(3, 3, 1).row().arity_ok(3));
    }
}
