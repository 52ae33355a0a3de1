use std::time::Duration;

use clap::Args;

/// How much a consumer takes at once, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct Limits {
    /// The most messages in one batch, which is one transaction.
    #[arg(long, env = "BATCH_MAX_MESSAGES", default_value_t = 250, value_parser = clap::value_parser!(u16).range(1..))]
    pub batch_max_messages: u16,

    /// The most deliveries the broker hands over unacknowledged: room for the batches in flight and the next.
    #[arg(long, env = "PREFETCH_MESSAGES", default_value_t = 1_000, value_parser = clap::value_parser!(u16).range(1..))]
    pub prefetch_messages: u16,

    /// How long one try at handling a batch may take, in seconds. More than the database's statement time-out, so that the
    /// server ends first what takes too long.
    #[arg(long, env = "BATCH_TIMEOUT_SECONDS", default_value_t = 12, value_parser = clap::value_parser!(u64).range(1..))]
    pub batch_timeout_seconds: u64,

    /// How long a batch is tried before it goes back to the queue, for another instance, in seconds. More than the batch
    /// time-out, so that a new connection is tried first.
    #[arg(
        long,
        env = "BATCH_GIVE_BACK_SECONDS",
        default_value_t = 15,
        value_parser = clap::value_parser!(u64).range(1..)
    )]
    pub batch_give_back_seconds: u64,

    /// After how long a message of which a row was locked is tried again, in seconds.
    #[arg(long, env = "RETRY_AFTER_SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub retry_after_seconds: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch_max_messages: 250,
            prefetch_messages: 1_000,
            batch_timeout_seconds: 12,
            batch_give_back_seconds: 15,
            retry_after_seconds: 5,
        }
    }
}

impl Limits {
    /// One message at a time.
    pub(super) fn single(self) -> Self {
        Self { batch_max_messages: 1, prefetch_messages: 1, ..self }
    }

    pub(super) fn timeout(self) -> Duration {
        Duration::from_secs(self.batch_timeout_seconds)
    }

    pub(super) fn give_back_after(self) -> Duration {
        Duration::from_secs(self.batch_give_back_seconds)
    }

    pub(super) fn retry_after(self) -> Duration {
        Duration::from_secs(self.retry_after_seconds)
    }
}
