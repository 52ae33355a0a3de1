use clap::{Args, Subcommand};

use super::{DeadLetter, Shelf};
use crate::publisher::message_id;
use crate::session::Broker;
use crate::topology::WorkQueue;

/// The most dead letters one command looks at, a queue; the oldest.
const LIMIT: usize = 10_000;

/// What a person can do with dead letters.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// List them: id, order, event and reason.
    List(Queues),
    /// Show one whole: properties, headers and body.
    Show {
        /// As `list` tells it.
        id: String,
        /// Where to look.
        #[command(flatten)]
        queues: Queues,
    },
    /// Publish them again to the queue they came from.
    Replay(Chosen),
    /// Take them away for good.
    Purge(Chosen),
}

/// Where to look.
#[derive(Debug, Clone, Args)]
pub struct Queues {
    /// Only the dead letters of this queue.
    #[arg(long)]
    queue: Option<String>,
}

/// Which dead letters.
#[derive(Debug, Clone, Args)]
pub struct Chosen {
    /// These, as `list` tells them.
    #[arg(required_unless_present = "all")]
    ids: Vec<String>,
    /// All of them.
    #[arg(long, conflicts_with = "ids")]
    all: bool,
    /// Where to look.
    #[command(flatten)]
    queues: Queues,
}

impl Chosen {
    fn has(&self, letter: &DeadLetter) -> bool {
        self.all || self.ids.contains(&letter.id)
    }
}

impl Queues {
    fn of<'q>(&self, served: &'q [WorkQueue]) -> anyhow::Result<Vec<&'q WorkQueue>> {
        let wanted = |queue: &&WorkQueue| self.queue.as_ref().is_none_or(|name| name == queue.name);
        let queues: Vec<_> = served.iter().filter(wanted).collect();
        let names = || served.iter().map(|queue| queue.name).collect::<Vec<_>>().join(", ");
        anyhow::ensure!(!queues.is_empty(), "no such queue; there are {}", names());
        Ok(queues)
    }
}

impl Command {
    /// Does it, and prints what was done.
    ///
    /// # Errors
    /// When the broker is away, or nothing is there of what was named.
    pub async fn run(&self, broker: &Broker, served: &[WorkQueue]) -> anyhow::Result<()> {
        let connection = broker.connect().await?;
        let (Self::List(queues)
        | Self::Show { queues, .. }
        | Self::Replay(Chosen { queues, .. })
        | Self::Purge(Chosen { queues, .. })) = self;
        let mut count = 0;
        for queue in queues.of(served)? {
            let shelf = Shelf::open(&connection, queue.name, LIMIT).await?;
            count += match self {
                Self::List(_) => shelf.letters().iter().map(|letter| list(queue.name, letter)).count(),
                Self::Show { id, .. } => shelf.letters().iter().filter(|letter| letter.id == *id).map(show).count(),
                Self::Replay(chosen) => shelf.replay(|letter| chosen.has(letter)).await?,
                Self::Purge(chosen) => shelf.purge(|letter| chosen.has(letter)).await?,
            };
        }
        match self {
            Self::List(_) => println!("{count} dead letters"),
            Self::Show { id, .. } => anyhow::ensure!(count > 0, "there is no dead letter {id}"),
            Self::Replay(chosen) => {
                anyhow::ensure!(count > 0 || chosen.all, "there are no such dead letters");
                println!("{count} replayed");
            }
            Self::Purge(chosen) => {
                anyhow::ensure!(count > 0 || chosen.all, "there are no such dead letters");
                println!("{count} purged");
            }
        }
        Ok(())
    }
}

fn list(queue: &str, letter: &DeadLetter) {
    let properties = &letter.delivery.properties;
    let property =
        |value: &Option<lapin::types::ShortString>| value.as_ref().map_or("-".to_owned(), ToString::to_string);
    let (event, order) = (property(properties.kind()), property(properties.correlation_id()));
    println!("{}  {queue}  {event}  {order}  {}", letter.id, letter.reason);
}

fn show(letter: &DeadLetter) {
    let properties = &letter.delivery.properties;
    println!("id          {}", letter.id);
    println!("reason      {}", letter.reason);
    println!("message_id  {}", message_id(properties));
    println!("properties  {properties:?}");
    println!("body        {}", String::from_utf8_lossy(&letter.delivery.data));
}
