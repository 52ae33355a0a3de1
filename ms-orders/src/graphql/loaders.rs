//! Fetch what belongs to orders for all orders of a response together.

use std::collections::HashMap;
use std::sync::Arc;

use async_graphql::dataloader::Loader;
use database::Pool;

use crate::order;
use crate::payment::{self, Payment};

/// Loads the lines of orders by their ids.
pub(super) struct Lines(pub(super) Pool);

impl Loader<String> for Lines {
    type Value = Vec<order::Line>;
    type Error = Arc<sqlx::Error>;

    async fn load(&self, ids: &[String]) -> Result<HashMap<String, Self::Value>, Self::Error> {
        let mut conn = self.0.acquire().await?;
        Ok(grouped(order::lines(&mut conn, ids).await?, |line| &line.order_id))
    }
}

/// Loads the steps of orders by their ids.
pub(super) struct Steps(pub(super) Pool);

impl Loader<String> for Steps {
    type Value = Vec<order::Step>;
    type Error = Arc<sqlx::Error>;

    async fn load(&self, ids: &[String]) -> Result<HashMap<String, Self::Value>, Self::Error> {
        let mut conn = self.0.acquire().await?;
        Ok(grouped(order::steps(&mut conn, ids).await?, |step| &step.order_id))
    }
}

/// Loads the payments of orders by their ids.
pub(super) struct Payments(pub(super) Pool);

impl Loader<String> for Payments {
    type Value = Payment;
    type Error = Arc<sqlx::Error>;

    async fn load(&self, ids: &[String]) -> Result<HashMap<String, Self::Value>, Self::Error> {
        let mut conn = self.0.acquire().await?;
        let payments = payment::of(&mut conn, ids).await?;
        Ok(payments.into_iter().map(|payment| (payment.order_id.clone(), payment)).collect())
    }
}

fn grouped<Row>(rows: Vec<Row>, order_id: impl Fn(&Row) -> &String) -> HashMap<String, Vec<Row>> {
    let mut groups: HashMap<String, Vec<Row>> = HashMap::new();
    for row in rows {
        match groups.get_mut(order_id(&row)) {
            Some(group) => group.push(row),
            None => {
                groups.insert(order_id(&row).clone(), vec![row]);
            }
        }
    }
    groups
}
