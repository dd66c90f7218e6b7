//! Which of a shard's connections a request goes on.
//!
//! Ordinary requests of all clients share a few pipelined connections for each shard, worker, database
//! and protocol: a reply then never needs translating, and SELECT is part of the connection. How many
//! (usually one) is the pool's `connections`; a client always goes on the same one, so that its
//! requests keep their order. A client that watches keys or subscribes has more to itself: `worker/pinned`.

/// The protocol a client negotiated with HELLO.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Protocol {
    #[default]
    Resp2,
    Resp3,
}

/// Names a shared connection of a shard.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct LaneKey {
    pub(crate) database: u16,
    pub(crate) index: u16,
    pub(crate) protocol: Protocol,
}
