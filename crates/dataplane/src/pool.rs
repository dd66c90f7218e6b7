//! What a pool is made of, and how it finds the shard of a key.
//!
//! A pool is immutable: a reload that changes it makes another one in its place. What outlives reloads (its clients,
//! its counters) is its [`PoolFace`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::command::{self, Command, ModuleCommand, RouteKind};
use crate::eject::{EjectRule, Ejector};
use crate::endpoint::Endpoint;
use crate::error::PlaneError;
use crate::hash::{HashKind, HashTag};
use crate::lane::LaneKey;
use crate::ring::{Distribution, Ring};
use crate::scripts::Scripts;
use crate::stats::PoolCounters;

/// Who says where the servers of a pool are, and so what becomes of requests while one is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Servers {
    /// The sentinels: requests of a shard without a master are held for the next one.
    Followed,
    /// The configuration, as with Twemproxy: there will be no other server, so what cannot be sent is
    /// answered with the reason at once, and every error of a server is passed on as it is.
    Fixed {
        /// Connect when the pool starts, not at the first request.
        preconnect: bool,
        /// A server that fails leaves the ring for a while.
        eject: Option<EjectRule>,
    },
}

/// Whose words clients are answered with where both have some.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    Redis,
    Twemproxy,
}

/// The settings of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolConfig {
    pub name: String,
    /// `IP:PORT`, or an absolute path.
    pub listen: String,
    /// The permissions of a listener that is a path.
    pub socket_mode: Option<u32>,
    /// Connections that may wait to be accepted.
    pub backlog: i32,
    /// Whether a port that another process shares is listened on too; otherwise it is in use.
    pub share_port: bool,
    /// Whether clients that vanish without a word are noticed by keepalive packets.
    pub keepalive: bool,
    /// Name and weight of each shard, in ring order.
    pub shards: Vec<(String, u32)>,
    pub hash: HashKind,
    pub distribution: Distribution,
    pub hash_tag: Option<HashTag>,
    pub servers: Servers,
    pub dialect: Dialect,
    /// What clients must send with AUTH.
    pub password: Option<String>,
    /// What Shoal sends to the servers.
    pub backend_password: Option<String>,
    /// The database of a client that has not selected one.
    pub database: u16,
    /// Shared connections to each server, of each worker, database and protocol.
    pub connections: u16,
    /// How long a request may wait for a server that can take it.
    pub hold_timeout: Duration,
    /// Bytes that held requests may take in the whole process.
    pub hold_bytes: usize,
    /// How long a request may wait for its answer, counted from its write; zero is off.
    pub timeout: Duration,
    /// Clients of the pool in the whole process; zero is no limit.
    pub client_connections: usize,
    /// Unanswered requests that one client may have while others are active.
    pub max_inflight: usize,
    /// What a read that goes to a replica may miss at most; without it reads go to the master.
    pub max_lag: Option<Duration>,
    /// Commands, `command` or `command|subcommand`, that are refused unless they stand here.
    pub allow: Vec<String>,
    /// Commands that are refused.
    pub deny: Vec<String>,
    /// Commands that only the servers know, and these settings.
    pub modules: Vec<ModuleCommand>,
}

/// The longest table of modula, which has a slot for each unit of weight.
const MOST_SLOTS: u64 = 1 << 22;

impl PoolConfig {
    /// A pool over shards that sentinels are followed for, with the usual settings.
    pub fn new(name: &str, listen: &str, shards: Vec<(String, u32)>) -> Self {
        Self {
            name: name.to_owned(),
            listen: listen.to_owned(),
            socket_mode: None,
            backlog: 1024,
            share_port: false,
            keepalive: false,
            shards,
            hash: HashKind::Fnv1a64,
            distribution: Distribution::Ketama,
            hash_tag: None,
            servers: Servers::Followed,
            dialect: Dialect::Redis,
            password: None,
            backend_password: None,
            database: 0,
            connections: 1,
            hold_timeout: Duration::from_secs(4),
            hold_bytes: 64 << 20,
            timeout: Duration::ZERO,
            client_connections: 0,
            max_inflight: 256,
            max_lag: None,
            allow: Vec::new(),
            deny: Vec::new(),
            modules: Vec::new(),
        }
    }

    /// Where the pool listens.
    pub(crate) fn endpoint(&self) -> Result<Endpoint, PlaneError> {
        let parsed = self.listen.parse();
        parsed.map_err(|what| PlaneError::Config(format!("pool \"{}\": listen {what}", self.name)))
    }

    /// Refuses what no pool can be made of.
    pub(crate) fn check(&self) -> Result<(), PlaneError> {
        let refuse = |what: &str| Err(PlaneError::Config(format!("pool \"{}\"{what}", self.name)));
        if self.shards.is_empty() {
            return refuse(" has no shards");
        }
        if self.shards.iter().all(|&(_, weight)| weight == 0) {
            return refuse(": no shard has a weight");
        }
        let slots: u64 = self
            .shards
            .iter()
            .map(|&(_, weight)| u64::from(weight))
            .sum();
        if self.distribution == Distribution::Modula && slots > MOST_SLOTS {
            return refuse(&format!(
                ": the weights add up to {slots}; modula has room for {MOST_SLOTS}"
            ));
        }
        if self.max_inflight == 0 {
            return refuse(": max_inflight must be at least 1");
        }
        if self.connections == 0 {
            return refuse(": there must be at least one connection to a server");
        }
        for command in &self.modules {
            if let Some(fault) = command.fault() {
                let name = &command.name;
                return refuse(&format!(": commands: modules: \"{name}\": {fault}"));
            }
        }
        let of_module = |name: &String| self.modules.iter().any(|it| it.name == *name);
        for name in self.allow.iter().chain(&self.deny) {
            if command::named(name).is_none() && !of_module(name) {
                return refuse(&format!(": commands: there is no command \"{name}\""));
            }
        }
        for name in &self.allow {
            if let Some(RouteKind::Unsupported(why)) = command::named(name).map(|row| row.route) {
                return refuse(&format!(": commands: \"{name}\" cannot be allowed: {why}"));
            }
        }
        self.endpoint().map(|_| ())
    }

    /// The command called `name` in any case: of the table, or of these settings.
    pub(crate) fn command(&self, name: &[u8]) -> Option<&'static Command> {
        command::lookup(name).or_else(|| {
            let mut modules = self.modules.iter();
            let found = modules.find(|it| it.name.as_bytes().eq_ignore_ascii_case(name));
            found.map(ModuleCommand::row)
        })
    }

    pub(crate) fn is_fixed(&self) -> bool {
        matches!(self.servers, Servers::Fixed { .. })
    }

    /// The connection of the client with this number while it has neither selected a database nor
    /// negotiated a protocol. A client keeps its connection, and so the order of its requests.
    pub(crate) fn lane(&self, client: u64) -> LaneKey {
        LaneKey {
            database: self.database,
            index: (client % u64::from(self.connections)) as u16,
            ..LaneKey::default()
        }
    }
}

/// From a key to the shard that owns it.
pub(crate) struct Router {
    hash: HashKind,
    tag: Option<HashTag>,
    /// Places of the shards on the ring → their ids; empty if all are ejected.
    shards: Box<[usize]>,
    ring: Option<Ring>,
    /// Draws shards where the distribution is random; a key then has no owner.
    draws: Option<AtomicU64>,
}

impl Router {
    /// The router over those of the pool's shards for which `live` says so; `ids` are theirs.
    pub(crate) fn new(config: &PoolConfig, ids: &[usize], live: impl Fn(usize) -> bool) -> Self {
        let places = || (0..ids.len()).filter(|&place| live(place));
        let ring: Vec<_> = places().map(|at| config.shards[at].clone()).collect();
        // As in nutcracker, a pool that was given one server asks no hash.
        let needs_ring = config.shards.len() > 1 && ring.iter().any(|&(_, weight)| weight > 0);
        Self {
            hash: config.hash,
            tag: config.hash_tag,
            shards: places().map(|place| ids[place]).collect(),
            ring: needs_ring.then(|| Ring::build(config.distribution, &ring)),
            draws: (config.distribution == Distribution::Random).then(AtomicU64::default),
        }
    }

    /// The shard for what has no key: always the same one while the ring does not change.
    pub(crate) fn any(&self) -> Option<usize> {
        self.shards.first().copied()
    }

    /// All keys are on one shard.
    pub(crate) fn is_single(&self) -> bool {
        self.ring.is_none()
    }

    /// Whatever stands in the place of `*`, the key belongs to the shard that the pattern itself does: its hash
    /// tag is whole before that.
    pub(crate) fn owns_pattern(&self, pattern: &[u8]) -> bool {
        let star = memchr::memchr(b'*', pattern).unwrap_or(pattern.len());
        let before = &pattern[..star];
        let tag = self.tag.as_ref().map(|tag| tag.part(before));
        self.draws.is_none() && tag.is_some_and(|tag| tag.len() < before.len())
    }

    /// Every shard that something may be sent to.
    pub(crate) fn shards(&self) -> &[usize] {
        &self.shards
    }

    /// Keys have no owners.
    pub(crate) fn draws(&self) -> bool {
        self.draws.is_some()
    }

    /// The id of the shard that owns `key`; `None` if every shard is ejected.
    pub(crate) fn shard_of(&self, key: &[u8]) -> Option<usize> {
        let Some(ring) = &self.ring else {
            return self.shards.first().copied();
        };
        if let Some(draws) = &self.draws {
            return Some(self.shards[ring.shard(scrambled(draws.fetch_add(1, Ordering::Relaxed)))]);
        }
        let tagged = match &self.tag {
            Some(tag) => tag.part(key),
            None => key,
        };
        Some(self.shards[ring.shard(self.hash.hash(tagged))])
    }
}

/// The high half of the n-th number of a Weyl sequence after one round of mixing: even enough to spread load.
fn scrambled(n: u64) -> u32 {
    let mixed = n.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    ((mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 32) as u32
}

/// What is known of a pool by its name, for as long as the process lives.
pub(crate) struct PoolFace {
    /// Clients of all workers.
    pub(crate) clients: AtomicUsize,
    /// How often a server was ejected.
    pub(crate) ejections: AtomicU64,
    /// By worker.
    pub(crate) counters: Box<[Arc<PoolCounters>]>,
    pub(crate) scripts: Scripts,
}

impl PoolFace {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            clients: AtomicUsize::new(0),
            ejections: AtomicU64::new(0),
            counters: (0..workers).map(|_| Arc::default()).collect(),
            scripts: Scripts::default(),
        }
    }
}

/// A pool as the workers see it.
pub(crate) struct Pool {
    pub(crate) config: PoolConfig,
    pub(crate) face: Arc<PoolFace>,
    /// The ids of its shards, in ring order.
    pub(crate) shards: Box<[usize]>,
    /// The same, sorted by name: what SCAN counts.
    pub(crate) by_name: Box<[usize]>,
    pub(crate) router: Arc<Router>,
    pub(crate) ejector: Option<Ejector>,
    /// Is not configured any more: takes no new clients, and lets the old ones finish.
    pub(crate) leaving: bool,
}

impl Pool {
    pub(crate) fn new(config: PoolConfig, face: Arc<PoolFace>, shards: Box<[usize]>) -> Self {
        let router = Arc::new(Router::new(&config, &shards, |_| true));
        let ejector = match config.servers {
            Servers::Fixed {
                eject: Some(rule), ..
            } => Some(Ejector::new(rule, config.clone(), shards.clone())),
            _ => None,
        };
        let mut by_name: Vec<usize> = (0..shards.len()).collect();
        by_name.sort_by_key(|&place| &config.shards[place].0);
        let by_name = by_name.into_iter().map(|place| shards[place]).collect();
        Self {
            config,
            face,
            shards,
            by_name,
            router,
            ejector,
            leaving: false,
        }
    }

    /// The pool of this configuration in place of the one there was: the same one if nothing about it is
    /// other, else one that remembers which servers have failed.
    pub(crate) fn in_place(
        before: &Arc<Self>,
        config: PoolConfig,
        shards: Box<[usize]>,
    ) -> Arc<Self> {
        if !before.leaving && before.config == config && before.shards == shards {
            return before.clone();
        }
        let mut pool = Self::new(config, before.face.clone(), shards);
        if let Some(was) = &before.ejector {
            pool.ejector = pool.ejector.map(|ejector| ejector.after(was));
        }
        Arc::new(pool)
    }

    /// The same pool as one that is not configured any more.
    pub(crate) fn left(&self) -> Self {
        Self {
            config: self.config.clone(),
            face: self.face.clone(),
            shards: self.shards.clone(),
            by_name: self.by_name.clone(),
            router: self.router.clone(),
            ejector: None,
            leaving: true,
        }
    }
}
