//! The payment provider, simulated. Its table stands for its own books: nothing else reads or writes it, and a real one
//! is put in its place behind [`Provider::charge`] and [`Provider::give_back`].

use database::Pool;
use messaging::Fault;
use rust_decimal::Decimal;

/// How long a `slow` payment takes, in seconds.
const SLOW_SECONDS: f64 = 3.0;

/// Makes payments and gives them back. What it did under a key it does not do again, so a request whose answer was lost
/// can be sent again.
///
/// A payment is declined if its reference begins with `decline`; it takes some seconds if that begins with `slow`; and if it
/// begins with `flaky`, the first request fails, the second is carried out but its answer lost, and the third is answered.
#[derive(Debug, Clone)]
pub struct Provider {
    books: Pool,
}

/// A payment, named by its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The order; the provider's idempotency key.
    pub order_id: String,
    /// How much is to be paid.
    pub amount: Decimal,
    /// What with; empty where nothing was said.
    pub reference: String,
}

/// How an attempt at a payment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// It is made.
    Paid,
    /// It will not be made.
    Declined,
    /// It is not known: ask again.
    NotYet,
}

impl Provider {
    /// A provider that keeps its books here.
    pub fn new(books: Pool) -> Self {
        Self { books }
    }

    /// Makes payments, and tells of each what became of it. One that was [given back](Self::give_back) is not made.
    ///
    /// # Errors
    /// When the provider cannot be reached; some of them may have been made.
    pub async fn charge(&self, payments: &[Key]) -> Result<Vec<(String, Attempt)>, Fault> {
        if payments.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.books.begin().await?;
        let rows = sqlx::query!(
            r#"insert into provider_charges as charge (key, amount, reference, state, settles_at)
               select
                   key,
                   amount,
                   reference,
                   (case
                       when reference like 'decline%' then 'declined'
                       when reference like 'flaky%' then 'open'
                       else 'charged'
                   end)::provider_state,
                   now() + make_interval(secs => case when reference like 'slow%' then $4::float8 else 0 end)
               from unnest($1::text[], $2::numeric[], $3::text[]) as payment (key, amount, reference)
               order by key
               on conflict (key) do update
               set requests = charge.requests + 1,
                   state = case when charge.state = 'open' then 'charged' else charge.state end
               returning
                   key as "key!",
                   state = 'declined' or state = 'void' or state = 'returned' as "declined!",
                   settles_at <= now() and (reference not like 'flaky%' or requests > 2) as "answered!""#,
            &payments.iter().map(|payment| payment.order_id.as_str()).collect::<Vec<_>>() as &[&str],
            &payments.iter().map(|payment| payment.amount).collect::<Vec<_>>(),
            &payments.iter().map(|payment| payment.reference.as_str()).collect::<Vec<_>>() as &[&str],
            SLOW_SECONDS,
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        let attempt = |declined, answered| match (answered, declined) {
            (false, _) => Attempt::NotYet,
            (true, true) => Attempt::Declined,
            (true, false) => Attempt::Paid,
        };
        Ok(rows.into_iter().map(|row| (row.key, attempt(row.declined, row.answered))).collect())
    }

    /// Gives payments back, or sees to it that they are never made. Returns the keys of those of which that is certain;
    /// the others are to be asked for again.
    ///
    /// # Errors
    /// When the provider cannot be reached; some of them may have been given back.
    pub async fn give_back(&self, payments: &[Key]) -> Result<Vec<String>, Fault> {
        if payments.is_empty() {
            return Ok(Vec::new());
        }
        let mut tx = self.books.begin().await?;
        let keys = sqlx::query_scalar!(
            r#"insert into provider_charges as charge (key, amount, reference, state, settles_at, returns)
               select key, amount, reference, 'void', now(), 1
               from unnest($1::text[], $2::numeric[], $3::text[]) as payment (key, amount, reference)
               order by key
               on conflict (key) do update
               set returns = charge.returns + 1,
                   state = case
                       when charge.state = 'charged' then 'returned'
                       when charge.state = 'open' then 'void'
                       else charge.state
                   end
               returning case when reference not like 'flaky%' or returns > 1 then key end"#,
            &payments.iter().map(|payment| payment.order_id.as_str()).collect::<Vec<_>>() as &[&str],
            &payments.iter().map(|payment| payment.amount).collect::<Vec<_>>(),
            &payments.iter().map(|payment| payment.reference.as_str()).collect::<Vec<_>>() as &[&str],
        )
        .fetch_all(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(keys.into_iter().flatten().collect())
    }
}
