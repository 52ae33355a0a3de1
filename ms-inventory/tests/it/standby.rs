//! Several consumers of one queue.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use database::LockWait;
use dev::testing::Vhost;
use events::queues;
use lapin::message::Delivery;
use lapin::{Connection, ConnectionProperties};
use messaging::consumer::{Handler, Limits, Verdict, consume};
use messaging::{Fault, Progress, topology};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::client::Client;
use crate::world::eventually;

const QUEUE: &str = queues::ORDER_CREATED;

/// Counts what it gets.
#[derive(Clone, Default)]
struct Count(Arc<AtomicUsize>);

impl Handler for Count {
    async fn handle(&self, batch: &[Delivery], _: LockWait) -> Result<Vec<Verdict>, Fault> {
        self.0.fetch_add(batch.len(), Ordering::Relaxed);
        Ok(vec![Verdict::Done(Vec::new()); batch.len()])
    }

    async fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
}

struct Instance {
    count: Count,
    shutdown: CancellationToken,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Instance {
    async fn start(vhost: &Vhost) -> Self {
        let connection = Connection::connect(vhost.amqp_url(), ConnectionProperties::default()).await.unwrap();
        let queue = topology::WorkQueue { name: QUEUE, exchange: "orders", routing_keys: &["order.created"] };
        topology::declare(&connection, &["orders"], &[queue]).await.unwrap();
        let (count, shutdown) = (Count::default(), CancellationToken::new());
        let (handler, stop) = (count.clone(), shutdown.clone());
        let ended = tokio::spawn(async move {
            let limits = Limits { prefetch_messages: 10, batch_max_messages: 10, ..Limits::default() };
            consume(&connection, "test", QUEUE, limits, &handler, &Progress::default(), &stop).await
        });
        Self { count, shutdown, ended }
    }

    fn taken(&self) -> usize {
        self.count.0.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn the_consumer_that_began_first_takes_all_and_the_next_goes_on_when_it_stops() {
    const ENOUGH: usize = 20;
    let vhost = Vhost::create().unwrap();
    let client = Client::connect(vhost.amqp_url()).await;
    let first = Instance::start(&vhost).await;
    eventually("the first consumes", async || client.consumers(QUEUE).await == 1).await;
    let second = Instance::start(&vhost).await;
    eventually("both consume", async || client.consumers(QUEUE).await == 2).await;

    let sent = AtomicUsize::new(0);
    let send = async || {
        client.create(&format!("ORD-{}", sent.fetch_add(1, Ordering::Relaxed)), &[(1, 1)]).await;
        eventually("it is taken", async || first.taken() + second.taken() == sent.load(Ordering::Relaxed)).await;
    };
    eventually("all that comes goes to the first", async || {
        let before = second.taken();
        for _ in 0..ENOUGH {
            send().await;
        }
        second.taken() == before
    })
    .await;

    let taken = first.taken();
    first.shutdown.cancel();
    eventually("only one consumes", async || client.consumers(QUEUE).await == 1).await;
    for _ in 0..ENOUGH {
        send().await;
    }
    assert_eq!(first.taken(), taken);
    second.shutdown.cancel();
    for instance in [first, second] {
        instance.ended.await.unwrap().unwrap();
    }
}
