//! The till: orders that come at the same time are placed in one transaction.
//!
//! A commit costs more than the order in it. So while one batch is placed those who come wait, and then go together: one
//! when it is quiet, all who are there when it is busy. Nobody waits for others to come.
//!
//! An order whose account another transaction has locked is tried again after a pause. Its request pauses, and then sends
//! it like a new one. So the order has no place in the queue meanwhile, a full queue delays it as it delays everybody, no
//! worker waits for the queue, and the order is dropped with its request.

use std::sync::Arc;
use std::time::Duration;

use database::Pool;
use messaging::Fault;
use messaging::outbox::Relay;
use tokio::sync::{Mutex, mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};

use crate::config::Shop;
use crate::order::{self, NewOrder, Order, PlaceError};

/// The most who wait here; who comes then waits outside, until the request's own time is over.
const QUEUE: usize = 1_000;

/// The most orders in one transaction.
const BATCH: usize = 250;

/// Transactions at a time: one is prepared while the other waits for the disk. More would only make them smaller.
const DESKS: usize = 2;

/// How long a transaction may take. More than a statement may, so that the server ends first what is slow; what takes longer
/// is on a connection that has gone silent. Shorter than other work may take, because everybody waits behind it.
const TRANSACTION_TIMEOUT: Duration = Duration::from_secs(12);

/// How long an order whose account is locked is tried again. As long as any statement waits for a lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The first pause before such an order is tried again; each is twice the one before.
const MIN_PAUSE: Duration = Duration::from_millis(10);

const MAX_PAUSE: Duration = Duration::from_millis(100);

/// Places orders, together where several wait.
#[derive(Debug, Clone)]
pub struct Till(mpsc::Sender<Customer>);

#[derive(Debug)]
struct Customer {
    order: NewOrder,
    answer: oneshot::Sender<Result<Order, PlaceError>>,
}

impl Till {
    /// Opens it, for as long as somebody may come. `relay` is woken for the events of the orders.
    pub fn open(pool: &Pool, relay: &Relay, shop: &Shop) -> Self {
        let shop = Arc::new(shop.clone());
        let (queue, waiting) = mpsc::channel(QUEUE);
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..DESKS {
            tokio::spawn(attend(waiting.clone(), pool.clone(), relay.clone(), shop.clone()));
        }
        Self(queue)
    }

    /// Places an order. When this returns it is committed, and its event with it.
    ///
    /// # Errors
    /// [`PlaceError`]; [`PlaceError::AccountBusy`] once it was tried for 5 s.
    pub async fn place(&self, order: NewOrder) -> Result<Order, PlaceError> {
        let mut pauses = database::backoff(MIN_PAUSE, MAX_PAUSE);
        let mut busy_until = None;
        loop {
            let placed = self.try_place(order.clone()).await;
            let Err(PlaceError::AccountBusy) = placed else { return placed };
            let pause = pauses.next().unwrap_or(MAX_PAUSE);
            if Instant::now() + pause > *busy_until.get_or_insert_with(|| Instant::now() + BUSY_TIMEOUT) {
                return placed;
            }
            sleep(pause).await;
        }
    }

    async fn try_place(&self, order: NewOrder) -> Result<Order, PlaceError> {
        let (answer, answered) = oneshot::channel();
        let unanswered = || PlaceError::from(Fault::Server(anyhow::anyhow!("the till did not answer")));
        self.0.send(Customer { order, answer }).await.map_err(|_| unanswered())?;
        answered.await.map_err(|_| unanswered())?
    }
}

async fn attend(waiting: Arc<Mutex<mpsc::Receiver<Customer>>>, pool: Pool, relay: Relay, shop: Arc<Shop>) {
    loop {
        let mut batch = Vec::new();
        if waiting.lock().await.recv_many(&mut batch, BATCH).await == 0 {
            return;
        }
        let (pool, relay, shop) = (pool.clone(), relay.clone(), shop.clone());
        // A task of its own: should it panic, the next batch is served all the same.
        tokio::spawn(async move { serve(&pool, &relay, &shop, batch).await }).await.ok();
    }
}

/// Places orders together; where that fails by what is in one of them, each alone, so that the others do not fail.
async fn serve(pool: &Pool, relay: &Relay, shop: &Shop, batch: Vec<Customer>) {
    // Whose request has timed out has been told so, and places no order any more.
    let present = batch.into_iter().filter(|customer| !customer.answer.is_closed());
    let (orders, answers): (Vec<_>, Vec<_>) = present.map(|customer| (customer.order, customer.answer)).unzip();
    match commit(pool, &orders, shop).await {
        Ok(placed) => {
            relay.wake();
            for (answer, placed) in answers.into_iter().zip(placed) {
                answer.send(placed).ok();
            }
        }
        Err(Fault::Sticky(error)) if orders.len() > 1 => {
            let error = format!("{error:#}");
            tracing::warn!(orders.len = orders.len(), error, "orders cannot be placed together; placing each alone");
            for (order, answer) in orders.chunks(1).zip(answers) {
                if !answer.is_closed() {
                    let placed = commit(pool, order, shop).await;
                    answer.send(placed.map_err(PlaceError::from).and_then(only)).ok();
                }
            }
            relay.wake();
        }
        Err(fault) => {
            // Each is told the cause. To place each alone could keep everybody waiting as often as there are orders.
            let fault = Arc::new(fault);
            for answer in answers {
                answer.send(Err(PlaceError::Fault(fault.clone()))).ok();
            }
        }
    }
}

fn only(mut placed: Vec<Result<Order, PlaceError>>) -> Result<Order, PlaceError> {
    placed.pop().unwrap_or_else(|| Err(Fault::Sticky(anyhow::anyhow!("an order without an answer")).into()))
}

async fn commit(pool: &Pool, orders: &[NewOrder], shop: &Shop) -> Result<Vec<Result<Order, PlaceError>>, Fault> {
    let committing = async {
        let mut tx = pool.begin().await?;
        let placed = order::place(&mut tx, orders, shop).await?;
        tx.commit().await?;
        Ok(placed)
    };
    let late = |_| Fault::TimedOut(anyhow::anyhow!("the database took more than {} s", TRANSACTION_TIMEOUT.as_secs()));
    timeout(TRANSACTION_TIMEOUT, committing).await.map_err(late)?
}
