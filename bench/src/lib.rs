//! `cargo dev bench`: how fast it is, as ratios in one run on one machine.
//!
//! In reading order: [`ground`] is where measuring happens, [`machine`] who used the processors meanwhile, [`load`] the
//! orders sent and what is demanded of their answers, [`echo`] the ceiling they are compared with, [`http`] the requests,
//! [`scenario`] what is measured, [`report`], [`chart`] and [`results`] how it is told.

pub mod chart;
pub mod echo;
pub mod ground;
pub mod http;
pub mod load;
pub mod machine;
pub mod report;
pub mod results;
pub mod scenario;

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use dev::{interrupt, process, servers};

use crate::ground::Ground;
use crate::results::Results;

#[derive(Parser)]
#[command(name = "cargo dev bench", bin_name = "cargo dev bench", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    peer: Option<Peer>,
    /// What to measure; all of it where nothing is named.
    scenario: Vec<Scenario>,
    #[command(flatten)]
    times: Times,
    #[command(flatten)]
    amounts: Amounts,
}

/// How long is measured.
#[derive(Args)]
struct Times {
    /// How often each side is measured, in turn; ratios are medians over the rounds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    rounds: u8,
    /// How long one measurement takes, in seconds
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// Counts measurements although something else uses the machine, and writes no results; for work on the benchmark
    #[arg(long)]
    busy_machine: bool,
}

/// How much is sent where it is not a matter of time.
#[derive(Args)]
struct Amounts {
    /// Orders that `soak` has answered
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    orders: u64,
    /// Orders that wait in `backlog`
    #[arg(long, default_value_t = 100_000, hide = true)]
    waiting: usize,
    #[command(flatten)]
    history: scenario::size::History,
}

/// What ours is compared with, started by the benchmark as a process of its own.
#[derive(Subcommand)]
enum Peer {
    #[command(hide = true)]
    Echo {
        amqp_url: String,
        #[arg(long)]
        properties: bool,
    },
    #[command(hide = true)]
    Constant { port: u16 },
    #[command(hide = true)]
    Plain { port: u16, database_url: String },
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Measurements of each side, in turn.
    pub rounds: u8,
    /// Length of one measurement.
    pub length: Duration,
    /// Whether a measurement counts although something else used the machine.
    pub busy_machine: bool,
}

impl Effort {
    /// What is sent before counting begins.
    pub fn warm_up(self) -> Duration {
        self.length.min(Duration::from_secs(1))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// 1, 100 and 1 000 orders in flight against the echo
    Throughput,
    /// 100 000 orders that wait when the service starts, against the echo
    Backlog,
    /// The same product in each order against any two, for one instance and for two
    Hot,
    /// A sold-out product in each order, and each order twice, against orders that get their stock
    Rejections,
    /// Orders that come paid and are sold in one step, against orders that are only held
    Paid,
    /// Two instances against one
    Instances,
    /// p99 at half the maximum rate against the echo at that rate, and p50 and p99 from a tenth of it to all
    Latency,
    /// createOrder over HTTP against a constant mutation, and the whole trip to CONFIRMED
    Orders,
    /// A page of products over GraphQL against the same SQL without it, and against Mercurius
    Reads,
    /// 10 million stored holds and 1 million products against an empty database
    Size,
    /// Twice the maximum rate for a minute: where the orders wait, and how soon it is over
    Overload,
    /// Millions of orders: rate, memory, dead rows, table and index sizes
    Soak,
}

/// Measures what the command line asks for, or is what is being compared with.
///
/// # Errors
/// When something cannot be measured, or an answer is wrong.
pub async fn run() -> Result<()> {
    let Arguments { peer, scenario, times, amounts } = Arguments::parse();
    match peer {
        Some(Peer::Echo { amqp_url, properties }) => return echo::serve(&amqp_url, properties).await,
        Some(Peer::Constant { port }) => return scenario::orders::serve_constant(port).await,
        Some(Peer::Plain { port, database_url }) => return scenario::reads::serve_plain(port, database_url).await,
        None => (),
    }
    let Times { rounds, seconds, busy_machine } = times;
    ensure!(seconds >= 0.05, "nothing can be measured in {seconds} s");
    let effort = Effort { rounds, length: Duration::from_secs_f64(seconds), busy_machine };
    let is_everything = scenario.is_empty();
    let wanted = if is_everything { Scenario::value_variants().to_vec() } else { scenario };
    let folder = Ground::folder()?;
    let _lock = servers::lock(&folder, || eprintln!("another cargo dev bench is at work; waiting for it"))?;
    interrupt::on_signal(move |signal| {
        process::stop_starting();
        process::sweep_below(&folder);
        interrupt::exit_code(signal)
    })?;
    let mut results = Results::of((!is_everything).then(|| names(&wanted)));
    let measured = measure(&wanted, effort, &amounts, &mut results).await;
    interrupt::yield_to_it();
    measured
}

/// `hot-soak`
fn names(scenarios: &[Scenario]) -> String {
    let names = scenarios.iter().filter_map(Scenario::to_possible_value);
    names.map(|name| name.get_name().to_owned()).collect::<Vec<_>>().join("-")
}

async fn measure(scenarios: &[Scenario], effort: Effort, amounts: &Amounts, results: &mut Results) -> Result<()> {
    for scenario in scenarios {
        let ground = Ground::prepare()?;
        let section = match scenario {
            Scenario::Throughput => {
                let (section, chart) = scenario::throughput::run(&ground, effort).await?;
                results.show(chart);
                section
            }
            Scenario::Backlog => scenario::backlog::run(&ground, effort, amounts.waiting).await?,
            Scenario::Hot => scenario::hot::run(&ground, effort).await?,
            Scenario::Rejections => scenario::rejections::run(&ground, effort).await?,
            Scenario::Paid => scenario::paid::run(&ground, effort).await?,
            Scenario::Instances => scenario::instances::run(&ground, effort).await?,
            Scenario::Latency => {
                let (section, chart) = scenario::latency::run(&ground, effort).await?;
                results.show(chart);
                section
            }
            Scenario::Size => scenario::size::run(&ground, effort, amounts.history).await?,
            Scenario::Overload => scenario::overload::run(&ground, effort).await?,
            Scenario::Soak => scenario::soak::run(&ground, effort, amounts.orders).await?,
            Scenario::Orders => scenario::orders::run(&ground, effort).await?,
            Scenario::Reads => scenario::reads::run(&ground, effort).await?,
        };
        results.on(ground.description()?);
        results.add(section, ground.voids().count());
        if !effort.busy_machine {
            results.write(effort)?;
        }
    }
    Ok(())
}
