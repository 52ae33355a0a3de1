//! What a seed chooses. The same seed chooses the same, whatever the timing.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Kind {
    /// AMQP connections are reset, one or all of a service.
    AmqpReset,
    /// PostgreSQL connections are reset, one or all of a service.
    PostgresReset,
    /// Up to 5 ms of latency between a service and its servers.
    Latency,
    /// Some 100 kB a second between a service and one of its servers.
    Throttle,
    /// AMQP connections go silent, for seconds or for ever.
    AmqpSilence,
    /// PostgreSQL connections go silent, for seconds or for ever.
    PostgresSilence,
    /// A server resets all connections of a service and refuses new ones.
    Refusal,
    /// A database is read-only, as after a failover to a standby, and then writable again.
    ReadOnly,
    /// All dead-letter queues are full, while poison messages come.
    FullDeadLetters,
    /// Messages that are no valid orders.
    Poison,
    /// An exchange is deleted; it comes back with the next sessions.
    DeletedExchange,
    /// A binding is removed; it comes back with the next session.
    RemovedBinding,
    /// A process is killed and started again.
    Kill,
}

impl Kind {
    /// All of them, by the names that `FAULTS` takes.
    pub(super) const ALL: [(Self, &str); 13] = [
        (Self::AmqpReset, "amqp-reset"),
        (Self::PostgresReset, "postgres-reset"),
        (Self::Latency, "latency"),
        (Self::Throttle, "throttle"),
        (Self::AmqpSilence, "amqp-silence"),
        (Self::PostgresSilence, "postgres-silence"),
        (Self::Refusal, "refusal"),
        (Self::ReadOnly, "read-only"),
        (Self::FullDeadLetters, "full-dead-letters"),
        (Self::Poison, "poison"),
        (Self::DeletedExchange, "deleted-exchange"),
        (Self::RemovedBinding, "removed-binding"),
        (Self::Kill, "kill"),
    ];

    pub(super) fn name(self) -> &'static str {
        Self::ALL.iter().find(|(kind, _)| *kind == self).map_or("", |(_, name)| name)
    }

    /// Reads a list of names that commas separate.
    pub(super) fn parse_list(names: &str) -> Vec<Self> {
        let parse = |name: &str| {
            let found = Self::ALL.iter().find(|(_, known)| *known == name.trim());
            found
                .unwrap_or_else(|| {
                    panic!("no fault is called {name:?}; there are {:?}", Self::ALL.map(|(_, name)| name))
                })
                .0
        };
        names.split(',').map(parse).collect()
    }
}

/// What happens under one seed.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) kinds: Vec<Kind>,
    /// Whether two instances of ms-inventory run.
    pub(super) two_instances: bool,
    pub(super) load: Load,
}

/// How orders are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Load {
    /// A few at a time, all the time, for products of which there is enough.
    Steady,
    /// Many at a time, with pauses between, for products of which some run out.
    Bursts,
}

impl Plan {
    /// Each kind of fault happens under a third of the seeds; where `only` names some, these happen under every seed. What
    /// a fault does under a seed is the same, whichever others happen beside it.
    pub(super) fn of(seed: u64, only: Option<&[Kind]>) -> Self {
        let mut random = random_for(seed, Purpose::Plan);
        let two_instances = random.random_bool(0.3);
        let mut kinds: Vec<Kind> = Kind::ALL.map(|(kind, _)| kind).to_vec();
        kinds.retain(|_| random.random_bool(1.0 / 3.0));
        if kinds.is_empty() {
            kinds.push(Kind::ALL[random.random_range(0..Kind::ALL.len())].0);
        }
        let load = if random.random() { Load::Steady } else { Load::Bursts };
        Self { seed, kinds: only.map_or(kinds, <[Kind]>::to_vec), two_instances, load }
    }
}

/// What random numbers are for. Each purpose has its own, so that none depends on how far another has come.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    Plan,
    Publisher,
    Shopper(u64),
    Fault(Kind),
}

pub(super) fn random_for(seed: u64, purpose: Purpose) -> StdRng {
    let stream = match purpose {
        Purpose::Plan => 0,
        Purpose::Publisher => 1,
        Purpose::Shopper(number) => 100 + number,
        Purpose::Fault(kind) => 200 + kind as u64,
    };
    StdRng::seed_from_u64(seed * 1_000 + stream)
}
