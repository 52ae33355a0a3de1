//! Places orders as many customers at once do, and shows how many are in which state until all have ended. Of each ten, one
//! is declined, one paid by a flaky and one by a slow provider, one cancelled at once and one refunded. Exits 1 if some do
//! not end in time, and says what they wait for.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write, stdout};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use auth::demo::login;
use boot::config::parse;
use boot::demo;
use clap::Parser;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

/// Place orders and watch what becomes of them.
#[derive(Debug, Clone, Parser)]
struct Cli {
    /// Where orders are placed.
    #[arg(long, env = "ORDERS_URL", default_value = "http://127.0.0.1:8001")]
    orders_url: String,

    /// Where the customers, and the ADMIN who refunds them, log in.
    #[arg(long, env = "USERS_URL", default_value = "http://127.0.0.1:8002")]
    users_url: String,

    /// The customers' account: they share one.
    #[arg(long, env = "CUSTOMER_EMAIL", default_value = demo::USER_EMAIL)]
    customer_email: String,

    /// Its password.
    #[arg(long, env = "CUSTOMER_PASSWORD", default_value = demo::USER_PASSWORD, hide_env_values = true)]
    customer_password: String,

    /// The account that refunds.
    #[arg(long, env = "ADMIN_EMAIL", default_value = demo::ADMIN_EMAIL)]
    admin_email: String,

    /// Its password.
    #[arg(long, env = "ADMIN_PASSWORD", default_value = demo::ADMIN_PASSWORD, hide_env_values = true)]
    admin_password: String,

    /// Where to look for products.
    #[arg(long, env = "INVENTORY_URL", default_value = "http://127.0.0.1:8000")]
    inventory_url: String,

    /// How many customers order at the same time.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    customers: u32,

    /// How many orders they place together.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    orders: u32,

    /// How long all of them may take to end, in seconds.
    #[arg(long, default_value_t = 120)]
    timeout_seconds: u64,
}

/// What a customer does with an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Pay(&'static str),
    Cancel,
    Refund,
}

impl Plan {
    /// Of the customer's order of this number, so that each customer does all of it.
    fn of(customer: u32, number: u32) -> Self {
        match (customer + number) % 10 {
            0 => Self::Pay("decline"),
            1 => Self::Pay("flaky"),
            2 => Self::Pay("slow"),
            3 => Self::Cancel,
            4 => Self::Refund,
            _ => Self::Pay("card"),
        }
    }
}

/// How often a customer looks at an order, and the table is drawn.
const LOOK: Duration = Duration::from_millis(250);

const STATES: [&str; 5] = ["PENDING", "CONFIRMED", "COMPLETED", "REFUNDED", "CANCELLED"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = parse::<Cli>();
    let client = boot::neighbour::client(None)?.build()?;
    let customer = login(&client, &cli.users_url, &cli.customer_email, &cli.customer_password).await?;
    let admin = login(&client, &cli.users_url, &cli.admin_email, &cli.admin_password).await?;
    let shop = Shop { client, customer, admin, cli: cli.clone() };
    let products = shop.products().await?;
    let begun = Instant::now();
    let (told, mut changes) = unbounded_channel();
    let mut customers = JoinSet::new();
    for customer in 0..cli.customers {
        let (shop, products, told, cli) = (shop.clone(), products.clone(), told.clone(), cli.clone());
        customers.spawn(async move {
            let mut watched = JoinSet::new();
            let own = cli.orders / cli.customers + u32::from(customer < cli.orders % cli.customers);
            for number in 0..own {
                let (shop, told) = (shop.clone(), told.clone());
                let product = &products[(customer + number) as usize % products.len()];
                let plan = Plan::of(customer, number);
                let id = shop.place(plan, product, &told).await?;
                watched.spawn(async move { shop.watch(plan, id, begun, &told).await });
            }
            while let Some(order) = watched.join_next().await {
                order??;
            }
            anyhow::Ok(())
        });
    }
    drop(told);

    let (mut table, mut states, mut placed) = (Table::default(), BTreeMap::new(), Vec::new());
    while let Some(change) = changes.recv().await {
        match change {
            Change::Placed(after) => placed.push(after),
            Change::Became { id, state } => drop(states.insert(id, state)),
        }
        table.draw(&states, begun.elapsed(), false);
    }
    table.draw(&states, begun.elapsed(), true);
    while let Some(customer) = customers.join_next().await {
        customer??;
    }
    placed.sort();
    let at = |share: usize| placed.get((placed.len() * share / 100).min(placed.len().saturating_sub(1)));
    let [p50, p99] = [50, 99].map(|share| at(share).copied().unwrap_or_default().as_secs_f64() * 1e3);
    println!("{} orders placed, createOrder answered in {p50:.1} ms (p50) and {p99:.1} ms (p99)", placed.len());
    let stuck = shop.stuck(&states).await?;
    ensure!(stuck.is_empty(), "{} orders did not end:\n{}", stuck.len(), stuck.join("\n"));
    Ok(())
}

enum Change {
    Placed(Duration),
    Became { id: String, state: String },
}

#[derive(Clone)]
struct Shop {
    client: reqwest::Client,
    /// Access tokens. They are valid for longer than all of it takes.
    customer: String,
    admin: String,
    cli: Cli,
}

impl Shop {
    /// Places one order, and cancels it at once if that is the plan.
    async fn place(&self, plan: Plan, product: &Value, told: &UnboundedSender<Change>) -> anyhow::Result<String> {
        let reference = if let Plan::Pay(reference) = plan { reference } else { "card" };
        let create = "mutation($input: CreateOrderInput!) { createOrder(input: $input) { id status } }";
        let items = json!([{"productId": product["id"], "quantity": 1}]);
        let sent = Instant::now();
        let order = self.ask(create, json!({"input": {"items": items, "paymentReference": reference}})).await?;
        told.send(Change::Placed(sent.elapsed()))?;
        let id = order["createOrder"]["id"].as_str().context("an order without an id")?.to_owned();
        told.send(Change::Became { id: id.clone(), state: "PENDING".into() })?;
        if plan == Plan::Cancel {
            self.end("cancelOrder", &id).await?;
        }
        Ok(id)
    }

    /// Stays with an order until it has ended, or time is up.
    async fn watch(
        &self,
        plan: Plan,
        id: String,
        begun: Instant,
        told: &UnboundedSender<Change>,
    ) -> anyhow::Result<()> {
        let timeout = Duration::from_secs(self.cli.timeout_seconds);
        while begun.elapsed() < timeout {
            let answer = self.ask("query($id: ID!) { order(id: $id) { status } }", json!({"id": id})).await?;
            let state = answer["order"]["status"].as_str().context("an order without a status")?.to_owned();
            told.send(Change::Became { id: id.clone(), state: state.clone() })?;
            match state.as_str() {
                "COMPLETED" if plan == Plan::Refund => self.end("refundOrder", &id).await?,
                "COMPLETED" | "REFUNDED" | "CANCELLED" => return Ok(()),
                _ => tokio::time::sleep(LOOK).await,
            }
        }
        Ok(())
    }

    /// Cancels or refunds an order. That it is something else by now is no fault.
    async fn end(&self, mutation: &str, id: &str) -> anyhow::Result<()> {
        let end = format!("mutation($id: ID!) {{ {mutation}(id: $id, reason: \"place-orders\") {{ status }} }}");
        let token = if mutation == "refundOrder" { &self.admin } else { &self.customer };
        let answer = self.send(token, &end, json!({"id": id})).await?;
        let error = &answer["errors"][0];
        ensure!(error.is_null() || error["extensions"]["code"] == "CONFLICT", "refused: {}", error["message"]);
        Ok(())
    }

    /// The products that can be ordered.
    async fn products(&self) -> anyhow::Result<Vec<Value>> {
        let url = format!("{}/graphql", self.cli.inventory_url);
        let query = json!({"query": "{ products(first: 50, filter: {minAvailable: 1}) { nodes { id } } }"});
        let asked = self.client.post(&url).json(&query).timeout(Duration::from_secs(10)).send().await;
        let answer: Value = asked.with_context(|| format!("cannot ask {url}"))?.json().await?;
        let products = answer["data"]["products"]["nodes"].as_array().cloned().unwrap_or_default();
        ensure!(!products.is_empty(), "there is no product in stock; run `cargo run --bin seed-data`: {answer}");
        Ok(products)
    }

    /// A line for each order that has not ended.
    async fn stuck(&self, states: &BTreeMap<String, String>) -> anyhow::Result<Vec<String>> {
        let mut stuck = Vec::new();
        let open = states.iter().filter(|(_, state)| ["PENDING", "CONFIRMED"].contains(&state.as_str()));
        for (id, state) in open {
            let answer = self.ask("query($id: ID!) { order(id: $id) { explain } }", json!({"id": id})).await?;
            stuck.push(format!("{id} {state}: {}", answer["order"]["explain"].as_str().unwrap_or_default()));
        }
        Ok(stuck)
    }

    async fn ask(&self, query: &str, variables: Value) -> anyhow::Result<Value> {
        let mut answer = self.send(&self.customer, query, variables).await?;
        ensure!(answer["errors"].is_null(), "refused: {}", answer["errors"][0]["message"]);
        Ok(answer["data"].take())
    }

    async fn send(&self, token: &str, query: &str, variables: Value) -> anyhow::Result<Value> {
        let url = format!("{}/graphql", self.cli.orders_url);
        let body = json!({"query": query, "variables": variables});
        loop {
            let request = self.client.post(&url).bearer_auth(token).json(&body).timeout(Duration::from_secs(30));
            let answer: Value = request.send().await.with_context(|| format!("cannot ask {url}"))?.json().await?;
            // All customers share an account, which may not ask for everything at once.
            let Some(seconds) = answer["errors"][0]["extensions"]["retryAfterSeconds"].as_u64() else {
                return Ok(answer);
            };
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        }
    }
}

/// How many orders are in which state: drawn over itself on a terminal, and into a file a line for each change.
#[derive(Default)]
struct Table {
    drawn: Option<Instant>,
    counts: [usize; STATES.len()],
}

impl Table {
    fn draw(&mut self, states: &BTreeMap<String, String>, elapsed: Duration, is_last: bool) {
        if !is_last && self.drawn.is_some_and(|drawn| drawn.elapsed() < LOOK) {
            return;
        }
        if self.drawn.is_none() {
            println!("{:>8} {}", "seconds", STATES.map(|state| format!("{state:>10}")).join(""));
        }
        self.drawn = Some(Instant::now());
        let counts = STATES.map(|state| states.values().filter(|is| is.as_str() == state).count());
        let row = format!("{:>8.1} {}", elapsed.as_secs_f64(), counts.map(|count| format!("{count:>10}")).join(""));
        if !stdout().is_terminal() {
            if counts != self.counts {
                println!("{row}");
            }
            self.counts = counts;
            return;
        }
        print!("\r{row}");
        if is_last {
            println!();
        }
        stdout().flush().ok();
    }
}
