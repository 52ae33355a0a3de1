use std::collections::BTreeMap;

use ::events::Item;
use chrono::{DateTime, Utc};
use messaging::Fault;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Advancing, News, Step};
use crate::config::Waits;
use crate::order::Shortage;
use crate::payment;
use crate::status::Status;

/// Locks those of the orders that are ours, in the order of their ids.
pub(super) async fn lock(conn: &mut PgConnection, news: &[News]) -> sqlx::Result<BTreeMap<String, Advancing>> {
    let ids: Vec<&str> = news.iter().map(|news| news.order_id.as_str()).collect();
    let rows = sqlx::query!(
        r#"select id, status as "status: Status", overdue_at is null as "was_answered!", stock_released, restock,
                  expires_at, reason, shortages as "shortages: Json<Vec<Shortage>>",
                  written_off as "written_off: Json<Vec<Item>>"
           from orders
           where id = any($1)
           order by id
           for update"#,
        &ids as &[&str],
    )
    .fetch_all(conn)
    .await?;
    let orders = rows.into_iter().map(|row| {
        let order = Advancing {
            was: row.status,
            status: row.status,
            changed: false,
            answered: false,
            was_answered: row.was_answered,
            stock_released: row.stock_released,
            restock: row.restock,
            declined: false,
            expires_at: row.expires_at,
            reason: row.reason,
            shortages: row.shortages,
            written_off: row.written_off,
        };
        (row.id, order)
    });
    Ok(orders.collect())
}

/// Stores what became of the orders and their payments, and appends to their timelines.
pub(super) async fn update(
    conn: &mut PgConnection,
    orders: &BTreeMap<String, Advancing>,
    steps: &[Step<'_>],
    waits: Waits,
) -> Result<(), Fault> {
    let turns: Vec<(&str, payment::Turn)> =
        orders.iter().filter_map(|(id, order)| Some((id.as_str(), order.payment()?))).collect();
    macro_rules! column {
        ($rows:expr, $get:expr) => {
            &$rows.iter().map($get).collect::<Vec<_>>()
        };
    }
    let updated = sqlx::query_scalar!(
        r#"with updated as (
               update orders
               set status = new.status,
                   stock_released = new.stock_released,
                   restock = new.restock,
                   expires_at = new.expires_at,
                   reason = new.reason,
                   shortages = new.shortages,
                   written_off = new.written_off,
                   updated_at = case when new.status = new.was then updated_at else now() end,
                   asks = case when new.status = new.was then asks else 0 end,
                   overdue_at = case
                       when new.answered then null
                       when new.status = new.was then overdue_at
                       when new.status = 'confirmed' then
                           greatest(now(), coalesce(new.expires_at, now() + interval '1 day')) + make_interval(secs => $14)
                       else now() + make_interval(secs => $14)
                   end
               from unnest(
                   $1::text[], $2::order_status[], $3::order_status[], $4::bool[], $5::timestamptz[], $6::text[],
                   $7::jsonb[], $8::bool[], $18::bool[], $20::jsonb[]
               ) as new (id, was, status, stock_released, expires_at, reason, shortages, answered, restock, written_off)
               where orders.id = new.id and orders.status = new.was
               returning orders.id, orders.total, orders.payment_reference
           ), step as (
               insert into order_steps (order_id, status, cause, message_id, trace_id, actor_id)
               select * from unnest($9::text[], $10::order_status[], $11::text[], $12::text[], $13::text[], $19::uuid[])
           ), due as (
               insert into payments (order_id, amount, reference, next_attempt_at)
               select id, total, payment_reference, now() + make_interval(secs => $15)
               from unnest($16::text[], $17::text[]) as turn (id, turn)
               join updated using (id)
               where turn = 'due'
           ), turned as (
               update payments
               set status = (case
                       when turn = 'paid' then 'paid'
                       when turn = 'declined' then 'declined'
                       when turn = 'cancel' and attempts = 0 then 'cancelled'
                       else 'returning'
                   end)::payment_status,
                   next_attempt_at = case
                       when turn = 'return' or turn = 'cancel' and attempts > 0 then now()
                   end,
                   attempts = case when turn in ('return', 'cancel') then 0 else attempts end,
                   updated_at = now()
               from unnest($16::text[], $17::text[]) as turn (id, turn)
               where payments.order_id = turn.id and turn <> 'due'
           )
           select count(*) as "count!" from updated"#,
        column!(orders, |(id, _)| id.as_str()) as &[&str],
        column!(orders, |(_, order)| order.was) as &[Status],
        column!(orders, |(_, order)| order.status) as &[Status],
        column!(orders, |(_, order)| order.stock_released),
        column!(orders, |(_, order)| order.expires_at) as &[Option<DateTime<Utc>>],
        column!(orders, |(_, order)| order.reason.as_deref()) as &[Option<&str>],
        column!(orders, |(_, order)| order.shortages.as_ref()) as &[Option<&Json<Vec<Shortage>>>],
        column!(orders, |(_, order)| order.answered),
        column!(steps, |step| step.news.order_id.as_str()) as &[&str],
        column!(steps, |step| step.status) as &[Status],
        column!(steps, Step::cause) as &[&str],
        column!(steps, Step::message_id) as &[Option<&str>],
        column!(steps, |step| step.news.trace.to_string()),
        waits.answer.as_secs_f64(),
        waits.payment.as_secs_f64(),
        column!(turns, |(id, _)| *id) as &[&str],
        column!(turns, |(_, turn)| turn.as_str()) as &[&str],
        column!(orders, |(_, order)| order.restock),
        column!(steps, Step::actor_id) as &[Option<Uuid>],
        column!(orders, |(_, order)| order.written_off.as_ref()) as &[Option<&Json<Vec<Item>>>],
    )
    .fetch_one(conn)
    .await?;
    if updated == orders.len() as i64 { Ok(()) } else { Err(Fault::Sticky(anyhow::anyhow!("a locked order changed"))) }
}
