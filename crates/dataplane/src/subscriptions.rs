//! What one client is subscribed to, and the connections that hear it for the client: its *ears*, one to each shard
//! that it needs.
//!
//! A channel is on the shard that its name hashes to, as a key is, and is published there only. Patterns are on
//! every shard, and so are the channels of keyspace notifications, which each server publishes for its own keys.
//! Owns the counts that confirmations carry, and the bounds. Knows nothing of sockets: `worker/pubsub` sends what is
//! decided here. The rule it keeps: what comes for a name is passed on only between the confirmation of that name
//! and its end.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::command::Topic;
use crate::lane::Protocol;
use crate::pool::Router;
use crate::push::{push_mark, write_confirmation};
use crate::reactor::Handle;
use crate::snapshot::Nanos;

/// Names that one client may be subscribed to, and bytes that they may have.
const MOST_NAMES: usize = 1 << 17;
const MOST_BYTES: usize = 32 << 20;
/// Bytes of messages that are kept while their subscription is not confirmed; who was not told cannot miss more.
const MOST_EARLY: usize = 1 << 20;

const TOPICS: [Topic; 3] = [Topic::Channel, Topic::Pattern, Topic::ShardChannel];

type Name = Box<[u8]>;

impl Topic {
    pub(crate) fn subscribe(self) -> &'static str {
        match self {
            Self::Channel => "subscribe",
            Self::Pattern => "psubscribe",
            Self::ShardChannel => "ssubscribe",
        }
    }

    pub(crate) fn unsubscribe(self) -> &'static str {
        match self {
            Self::Channel => "unsubscribe",
            Self::Pattern => "punsubscribe",
            Self::ShardChannel => "sunsubscribe",
        }
    }
}

/// The shards that a name is subscribed to on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Home {
    One(usize),
    Every,
}

impl Home {
    /// `None` if no shard is left.
    fn of(router: &Router, topic: Topic, name: &[u8]) -> Option<Self> {
        let of_keyspace = name.starts_with(b"__keyspace@") || name.starts_with(b"__keyevent@");
        let everywhere = match topic {
            Topic::Channel => of_keyspace,
            Topic::Pattern => true,
            Topic::ShardChannel => false,
        };
        // Where keys have no owners a message goes anywhere.
        if everywhere || router.draws() {
            return (!router.shards().is_empty()).then_some(Self::Every);
        }
        router.shard_of(name).map(Self::One)
    }

    fn shards<'r>(&'r self, router: &'r Router) -> &'r [usize] {
        match self {
            Self::One(shard) => std::slice::from_ref(shard),
            Self::Every => router.shards(),
        }
    }
}

struct Subscription {
    home: Home,
    /// The client has its confirmation.
    told: bool,
}

/// A connection to one shard.
pub(crate) struct Ear {
    pub(crate) shard: usize,
    /// It may be gone.
    pub(crate) backend: Option<Handle>,
    /// When the next attempt to connect is due; none is at once.
    pub(crate) retry_ms: Option<u32>,
    /// How many names are subscribed to there.
    names: usize,
}

/// A SUBSCRIBE that its shards have not all confirmed.
pub(crate) struct Asking {
    pub(crate) sequence: u32,
    pub(crate) since: Nanos,
    topic: Topic,
    /// Names that were not subscribed to before.
    fresh: Vec<Name>,
    /// What the client is answered once they are.
    reply: Vec<u8>,
}

/// A name to be subscribed to on a shard, or not any more.
pub(crate) struct Move {
    pub(crate) ear: Option<Handle>,
    pub(crate) word: &'static str,
    pub(crate) name: Name,
}

/// Whether a message is the client's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wanted {
    Now,
    /// Once its subscription is confirmed.
    Later,
    No,
}

/// A client's subscriptions.
pub(crate) struct Subscriptions {
    /// By topic, in the order of [`TOPICS`].
    names: [BTreeMap<Name, Subscription>; 3],
    bytes: usize,
    pub(crate) ears: Vec<Ear>,
    /// Says which names are where.
    pub(crate) router: Arc<Router>,
    pub(crate) asking: Option<Asking>,
    /// Messages that wait for the confirmation of what is asked.
    early: Vec<u8>,
    /// Bytes of messages since nothing was unsent.
    pub(crate) backlog: usize,
    /// Is in the worker's list of subscribers with something to be done.
    pub(crate) tended: bool,
}

impl Subscriptions {
    pub(crate) fn new(router: Arc<Router>) -> Self {
        Self {
            names: Default::default(),
            bytes: 0,
            ears: Vec::new(),
            router,
            asking: None,
            early: Vec::new(),
            backlog: 0,
            tended: false,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.names.iter().all(BTreeMap::is_empty)
    }

    fn of(&self, topic: Topic) -> &BTreeMap<Name, Subscription> {
        &self.names[topic as usize]
    }

    /// The number in a confirmation: channels and patterns together, shard channels apart.
    fn count(&self, topic: Topic) -> usize {
        match topic {
            Topic::Channel | Topic::Pattern => self.names[0].len() + self.names[1].len(),
            Topic::ShardChannel => self.names[2].len(),
        }
    }

    /// How many names of a topic.
    pub(crate) fn names_of(&self, topic: Topic) -> usize {
        self.of(topic).len()
    }

    /// Every name of a topic.
    pub(crate) fn all(&self, topic: Topic) -> Vec<Name> {
        self.of(topic).keys().cloned().collect()
    }

    /// Takes the names of a SUBSCRIBE; returns what is to be said to the ears that are open. The error line if they
    /// are too many, or if no shard is left.
    pub(crate) fn ask<'a>(
        &mut self,
        topic: Topic,
        names: impl Iterator<Item = &'a [u8]> + Clone,
        protocol: Protocol,
    ) -> Result<Vec<Move>, String> {
        let known = self.of(topic);
        let more = names.clone().filter(|&name| !known.contains_key(name));
        let (count, bytes) = more.fold((0, 0), |(count, bytes), name| {
            (count + 1, bytes + name.len())
        });
        let total: usize = self.names.iter().map(BTreeMap::len).sum();
        if total + count > MOST_NAMES || self.bytes + bytes > MOST_BYTES {
            return Err(format!(
                "-ERR too many subscriptions: Shoal takes up to {MOST_NAMES} of a client, and {MOST_BYTES} bytes\r\n"
            ));
        }
        let mut asking = Asking {
            sequence: 0,
            since: 0,
            topic,
            fresh: Vec::new(),
            reply: Vec::new(),
        };
        let mut moves = Vec::new();
        for name in names {
            if !self.of(topic).contains_key(name) && self.add(topic, name, &mut moves) {
                asking.fresh.push(name.into());
            }
            let count = self.count(topic);
            write_confirmation(
                &mut asking.reply,
                protocol,
                topic.subscribe(),
                Some(name),
                count,
            );
        }
        self.asking = Some(asking);
        Ok(moves)
    }

    fn add(&mut self, topic: Topic, name: &[u8], moves: &mut Vec<Move>) -> bool {
        let Some(home) = Home::of(&self.router, topic, name) else {
            return false;
        };
        self.bytes += name.len();
        let told = false;
        self.names[topic as usize].insert(name.into(), Subscription { home, told });
        for &shard in home.shards(&self.router.clone()) {
            let ear = self.join(shard);
            moves.push(Move {
                ear,
                word: topic.subscribe(),
                name: name.into(),
            });
        }
        true
    }

    /// One name more on this shard; returns the connection there.
    fn join(&mut self, shard: usize) -> Option<Handle> {
        if let Some(ear) = self.ears.iter_mut().find(|ear| ear.shard == shard) {
            ear.names += 1;
            return ear.backend;
        }
        self.ears.push(Ear {
            shard,
            backend: None,
            retry_ms: None,
            names: 1,
        });
        None
    }

    /// One name less on this shard; returns the connection there.
    fn part(&mut self, shard: usize) -> Option<Handle> {
        let ear = self.ears.iter_mut().find(|ear| ear.shard == shard)?;
        ear.names -= 1;
        ear.backend
    }

    /// Ends a subscription; returns what is to be said to its ears.
    pub(crate) fn remove(&mut self, topic: Topic, name: &[u8]) -> Vec<Move> {
        let Some(gone) = self.names[topic as usize].remove(name) else {
            return Vec::new();
        };
        self.bytes -= name.len();
        let router = self.router.clone();
        let leave = |&shard: &usize| Move {
            ear: self.part(shard),
            word: topic.unsubscribe(),
            name: name.into(),
        };
        gone.home.shards(&router).iter().map(leave).collect()
    }

    /// Appends the confirmation that `name` is subscribed to no more, or that there was nothing.
    pub(crate) fn confirm_end(
        &self,
        out: &mut Vec<u8>,
        protocol: Protocol,
        topic: Topic,
        name: Option<&[u8]>,
    ) {
        write_confirmation(out, protocol, topic.unsubscribe(), name, self.count(topic));
    }

    /// Gives up the ears that hear nothing any more; returns their connections.
    pub(crate) fn idle_ears(&mut self) -> Vec<Handle> {
        let idle = self.ears.extract_if(.., |ear| ear.names == 0);
        idle.filter_map(|ear| ear.backend).collect()
    }

    /// Everything that is subscribed to on this shard, and whether the client knows.
    pub(crate) fn on(&self, shard: usize) -> impl Iterator<Item = (Topic, &[u8], bool)> {
        TOPICS.into_iter().flat_map(move |topic| {
            let here = self
                .of(topic)
                .iter()
                .filter(move |(_, of)| of.home.shards(&self.router).contains(&shard));
            here.map(move |(name, of)| (topic, &**name, of.told))
        })
    }

    pub(crate) fn ear_mut(&mut self, shard: usize) -> Option<&mut Ear> {
        self.ears.iter_mut().find(|ear| ear.shard == shard)
    }

    /// What is asked needs this shard.
    pub(crate) fn asks(&self, shard: usize) -> bool {
        self.asking.as_ref().is_some_and(|asking| {
            let known = self.of(asking.topic);
            let homes = asking.fresh.iter().filter_map(|name| known.get(name));
            let mut homes = homes.map(|of| of.home);
            homes.any(|home| home.shards(&self.router).contains(&shard))
        })
    }

    /// All that was asked is confirmed: the client's slot, its answer, and what has come meanwhile.
    pub(crate) fn told(&mut self) -> Option<(u32, Vec<u8>, Vec<u8>)> {
        let asking = self.asking.take()?;
        let known = &mut self.names[asking.topic as usize];
        for name in &asking.fresh {
            if let Some(subscription) = known.get_mut(name) {
                subscription.told = true;
            }
        }
        Some((
            asking.sequence,
            asking.reply,
            std::mem::take(&mut self.early),
        ))
    }

    /// What was asked will not be: its slot, and what is to be said to the ears.
    pub(crate) fn give_up(&mut self) -> Option<(u32, Vec<Move>)> {
        let asking = self.asking.take()?;
        self.early = Vec::new();
        let gone = asking.fresh.iter();
        let moves = gone
            .flat_map(|name| self.remove(asking.topic, name))
            .collect();
        Some((asking.sequence, moves))
    }

    pub(crate) fn wants(&self, topic: Topic, name: &[u8]) -> Wanted {
        match self.of(topic).get(name) {
            Some(subscription) if subscription.told => Wanted::Now,
            Some(_) => Wanted::Later,
            None => Wanted::No,
        }
    }

    /// Keeps a message until its subscription is confirmed.
    pub(crate) fn keep(&mut self, protocol: Protocol, message: &[u8]) {
        if self.early.len() + message.len() <= MOST_EARLY {
            self.early.push(push_mark(protocol));
            self.early.extend_from_slice(&message[1..]);
        }
    }

    /// Goes over to another ring; returns what is to be said to the ears. Without any shard left, names stay where
    /// they are.
    pub(crate) fn follow(&mut self, router: &Arc<Router>) -> Vec<Move> {
        if router.shards().is_empty() {
            return Vec::new();
        }
        let before = std::mem::replace(&mut self.router, router.clone());
        let mut changes: Vec<(Topic, Name, usize, bool)> = Vec::new();
        for topic in TOPICS {
            for (name, subscription) in &mut self.names[topic as usize] {
                let Some(home) = Home::of(router, topic, name) else {
                    continue;
                };
                let was = std::mem::replace(&mut subscription.home, home);
                let (old, new) = (was.shards(&before), home.shards(router));
                let joined = new.iter().filter(|shard| !old.contains(shard));
                changes.extend(joined.map(|&shard| (topic, name.clone(), shard, true)));
                let left = old.iter().filter(|shard| !new.contains(shard));
                changes.extend(left.map(|&shard| (topic, name.clone(), shard, false)));
            }
        }
        let say = |(topic, name, shard, joins): (Topic, Name, usize, bool)| Move {
            ear: if joins {
                self.join(shard)
            } else {
                self.part(shard)
            },
            word: if joins {
                topic.subscribe()
            } else {
                topic.unsubscribe()
            },
            name,
        };
        changes.into_iter().map(say).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Arc, Protocol, Router, Subscriptions, Topic, Wanted};
    use crate::pool::PoolConfig;

    fn router(shards: &[usize]) -> Arc<Router> {
        let weights = shards
            .iter()
            .map(|shard| (format!("s{shard}"), 1))
            .collect();
        let config = PoolConfig::new("p", "127.0.0.1:1", weights);
        Arc::new(Router::new(&config, shards, |_| true))
    }

    fn ask(to: &mut Subscriptions, topic: Topic, names: &[&str]) -> usize {
        let names = names.iter().map(|name| name.as_bytes());
        let moves = to.ask(topic, names, Protocol::Resp2).expect("not too many");
        moves.len()
    }

    #[test]
    fn a_channel_is_on_one_shard_and_patterns_are_on_all() {
        let mut all = Subscriptions::new(router(&[3, 5, 8]));
        assert_eq!(ask(&mut all, Topic::Channel, &["a", "b", "a"]), 2);
        all.told();
        assert_eq!(ask(&mut all, Topic::Pattern, &["a"]), 3);
        assert_eq!(
            ask(&mut all, Topic::Channel, &["__keyevent@0__:set", "a"]),
            3
        );
        assert_eq!(
            ask(&mut all, Topic::ShardChannel, &["__keyevent@0__:set"]),
            1
        );
        assert_eq!(all.count(Topic::Channel), 4);
        assert_eq!(all.count(Topic::ShardChannel), 1);
    }

    #[test]
    fn a_message_is_wanted_between_its_confirmation_and_its_end() {
        let mut all = Subscriptions::new(router(&[3]));
        ask(&mut all, Topic::Channel, &["a"]);
        assert_eq!(all.wants(Topic::Channel, b"a"), Wanted::Later);
        all.told();
        assert_eq!(all.wants(Topic::Channel, b"a"), Wanted::Now);
        assert_eq!(all.wants(Topic::ShardChannel, b"a"), Wanted::No);
        assert_eq!(all.remove(Topic::Channel, b"a").len(), 1);
        assert_eq!(all.wants(Topic::Channel, b"a"), Wanted::No);
        assert!(all.is_empty());
        all.idle_ears();
        assert!(all.ears.is_empty());
    }

    #[test]
    fn what_is_given_up_leaves_what_was_before() {
        let mut all = Subscriptions::new(router(&[3, 5]));
        ask(&mut all, Topic::Pattern, &["a"]);
        all.told();
        ask(&mut all, Topic::Pattern, &["a", "b"]);
        let (_, moves) = all.give_up().expect("something was asked");
        assert_eq!(moves.len(), 2, "b, on both shards");
        assert_eq!(all.wants(Topic::Pattern, b"a"), Wanted::Now);
        assert_eq!(all.wants(Topic::Pattern, b"b"), Wanted::No);
    }

    /// Names to be subscribed to, or not any more, and rings to go over to.
    fn steps() -> impl Strategy<Value = Vec<(usize, usize, Vec<usize>)>> {
        let ring = prop::sample::subsequence(vec![0, 1, 2, 3], 0..4);
        prop::collection::vec((0..4_usize, 0..12_usize, ring), 0..60)
    }

    proptest! {
        /// After whatever happened, each ear hears exactly the names whose home is there.
        #[test]
        fn ears_have_what_is_at_home_there(steps in steps()) {
            const TOPICS: [Topic; 3] = [Topic::Channel, Topic::Pattern, Topic::ShardChannel];
            let mut all = Subscriptions::new(router(&[0, 1]));
            for (what, name, ring) in steps {
                let topic = TOPICS[name % 3];
                let name = if name > 9 { "__keyspace@0__:k".to_owned() } else { format!("{name}:name") };
                match what {
                    0 | 1 => {
                        ask(&mut all, topic, &[&name]);
                        all.told();
                    }
                    2 => drop(all.remove(topic, name.as_bytes())),
                    _ => drop(all.follow(&router(&ring))),
                }
                all.idle_ears();
                let heard: Vec<(usize, usize)> = all.ears.iter().map(|ear| (ear.shard, ear.names)).collect();
                for (shard, names) in heard {
                    prop_assert_eq!(all.on(shard).count(), names);
                    prop_assert!(all.router.shards().contains(&shard));
                }
                let homes: usize = all.router.shards().iter().map(|&shard| all.on(shard).count()).sum();
                let names: usize = all.ears.iter().map(|ear| ear.names).sum();
                prop_assert_eq!(homes, names);
            }
        }
    }
}
