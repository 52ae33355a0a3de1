use std::collections::HashMap;

use ::events::Item;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::{NewOrder, PlaceError};
use crate::order::{Order, Shortage, hours, items, orders};
use crate::status::Status;

/// Idempotency keys, each with the user whose it is.
pub(super) struct Keys<'a> {
    users: Vec<Uuid>,
    keys: Vec<&'a str>,
}

impl<'a> Keys<'a> {
    /// Those of orders that have one.
    pub(super) fn of(new: impl Iterator<Item = &'a NewOrder>) -> Self {
        let (users, keys) = new.filter_map(NewOrder::key).unzip();
        Self { users, keys }
    }
}

/// Orders that were placed before, by their users and idempotency keys, and what they are for.
pub(super) struct Known(HashMap<(Uuid, String), (Order, Vec<Item>)>);

impl Known {
    /// Those that are fresh.
    pub(super) async fn find(conn: &mut PgConnection, new: &[NewOrder], ttl_hours: u32) -> sqlx::Result<Self> {
        let Keys { users, keys } = Keys::of(new.iter());
        if keys.is_empty() {
            return Ok(Self(HashMap::new()));
        }
        let orders = orders!(
            "where (user_id, idempotency_key) in (select * from unnest($1::uuid[], $2::text[]))
               and created_at > now() - make_interval(hours => $3)",
            &users,
            &keys as &[&str],
            hours(ttl_hours)
        )
        .fetch_all(&mut *conn)
        .await?;
        let ids: Vec<String> = orders.iter().map(|order| order.id.clone()).collect();
        let mut items = items(conn, &ids).await?;
        let with_items = |order: Order| {
            let items = items.remove(&order.id).unwrap_or_default();
            Some(((order.user_id?, order.idempotency_key.clone()?), (order, items)))
        };
        Ok(Self(orders.into_iter().filter_map(with_items).collect()))
    }

    pub(super) fn answer(&self, new: &NewOrder) -> Option<Result<Order, PlaceError>> {
        let (order, items) = self.0.get(&(new.caller.user_id, new.idempotency_key.clone()?))?;
        let same = *items == new.basket.items()
            && order.payment_reference == new.payment_reference
            && new.expected_total.is_none_or(|expected| expected == order.total);
        Some(if same { Ok(order.clone()) } else { Err(PlaceError::KeyReused { order_id: order.id.clone() }) })
    }
}

/// Frees keys whose time is over, so that they can name other orders.
pub(super) async fn forget(conn: &mut PgConnection, keys: &Keys<'_>, ttl_hours: u32) -> sqlx::Result<()> {
    sqlx::query!(
        "update orders
         set idempotency_key = null
         where id in (
             select id
             from orders
             where (user_id, idempotency_key) in (select * from unnest($1::uuid[], $2::text[]))
               and created_at <= now() - make_interval(hours => $3)
             order by id
             for update
         )",
        &keys.users,
        &keys.keys as &[&str],
        hours(ttl_hours),
    )
    .execute(conn)
    .await?;
    Ok(())
}
