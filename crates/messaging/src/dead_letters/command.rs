use std::io::Write;

use clap::{Args, Subcommand};
use lapin::types::{AMQPValue, FieldTable, ShortString};

use super::{DeadLetter, Shelf};
use crate::session::Broker;
use crate::topology::WorkQueue;

/// The most dead letters one command looks at, a queue; the oldest.
const LIMIT: usize = 1_000;

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
        let mut out = String::new();
        let mut count = 0;
        for queue in queues.of(served)? {
            let shelf = Shelf::open(&connection, queue.name, LIMIT).await?;
            count += match self {
                Self::List(_) => shelf.letters().iter().map(|letter| out += &line(queue.name, letter)).count(),
                Self::Show { id, .. } => {
                    let shown = shelf.letters().iter().filter(|letter| letter.id == *id);
                    shown.map(|letter| out += &page(letter)).count()
                }
                Self::Replay(chosen) => shelf.replay(|letter| chosen.has(letter)).await?,
                Self::Purge(chosen) => shelf.purge(|letter| chosen.has(letter)).await?,
            };
            shelf.close().await?;
        }
        let (is_there, done) = match self {
            Self::List(_) => (true, format!("{count} dead letters\n")),
            Self::Show { .. } => (count > 0, String::new()),
            Self::Replay(chosen) => (count > 0 || chosen.all, format!("{count} replayed\n")),
            Self::Purge(chosen) => (count > 0 || chosen.all, format!("{count} purged\n")),
        };
        anyhow::ensure!(is_there, "there is no such dead letter");
        std::io::stdout().write_all((out + &done).as_bytes())?;
        Ok(())
    }
}

fn line(queue: &str, letter: &DeadLetter) -> String {
    let properties = &letter.delivery.properties;
    let or_dash = |text: &Option<ShortString>| text.as_ref().map_or("-".to_owned(), |text| printable(text.as_str()));
    let (event, order) = (or_dash(properties.kind()), or_dash(properties.correlation_id()));
    format!("{}  {queue}  {event}  {order}  {}\n", letter.id, printable(&letter.reason))
}

fn page(letter: &DeadLetter) -> String {
    let properties = &letter.delivery.properties;
    let mut page = format!("id: {}\nreason: {}\n", letter.id, letter.reason);
    for (name, value) in [
        ("message_id", properties.message_id()),
        ("type", properties.kind()),
        ("correlation_id", properties.correlation_id()),
        ("app_id", properties.app_id()),
        ("content_type", properties.content_type()),
    ] {
        page += &value.as_ref().map_or(String::new(), |value| format!("{name}: {value}\n"));
    }
    for (name, value) in properties.headers().iter().flat_map(FieldTable::inner) {
        page += &match value {
            AMQPValue::LongString(text) => format!("{name}: {}\n", String::from_utf8_lossy(text.as_bytes())),
            other => format!("{name}: {other:?}\n"),
        };
    }
    page + &format!("\n{}\n", String::from_utf8_lossy(&letter.delivery.data))
}

/// One line, whatever a sender wrote.
fn printable(text: &str) -> String {
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}
