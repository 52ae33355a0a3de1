//! How stock came and went: `on_hand` of a product is the sum of its movements, and none is ever changed.

use chrono::{DateTime, Utc};
use sqlx::PgConnection;

use crate::product::{self, Cause, Invalid, MAX_ON_HAND, Product};

/// The longest note, in characters.
const MAX_NOTE_CHARS: usize = 500;

/// The note on stock that is taken away because its product is deleted.
pub(crate) const PRODUCT_DELETED: &str = "product deleted";

/// The longest idempotency key, in characters.
const MAX_KEY_CHARS: usize = 255;

/// One change of a product's stock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// Grows from one to the next.
    pub id: i64,
    /// The product, which may have been deleted since.
    pub product_id: i64,
    /// By how much: never 0.
    pub quantity: i64,
    /// What kind of change it was.
    pub reason: Reason,
    /// What there was to say about it; may be empty.
    pub note: String,
    /// Who caused it.
    pub actor: String,
    /// The order it was for.
    pub order_id: Option<String>,
    /// When it was booked.
    pub created_at: DateTime<Utc>,
}

/// What kind of change of stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, sqlx::Type)]
#[sqlx(type_name = "movement_reason", rename_all = "snake_case")]
pub enum Reason {
    /// It came with the product.
    Received,
    /// A person said so.
    Adjusted,
    /// It was sold.
    Committed,
    /// It came back.
    Returned,
}

/// Movements, the newest first, of one product or of all; `after` is the id of the movement they come after.
///
/// # Errors
/// Those of the database.
pub async fn page(
    conn: &mut PgConnection,
    product_id: Option<i64>,
    after: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Movement>> {
    sqlx::query_as!(
        Movement,
        r#"select id, product_id, quantity, reason as "reason: Reason", note, actor, order_id, created_at
           from movements
           where ($1::bigint is null or product_id = $1)
             and ($2::bigint is null or id < $2)
           order by id desc
           limit $3"#,
        product_id,
        after,
        limit,
    )
    .fetch_all(conn)
    .await
}

/// A change of stock that a person asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Adjustment {
    /// The product.
    pub product_id: i64,
    /// By how much: not 0, at most [`MAX_ON_HAND`] either way.
    pub delta: i64,
    /// Why: at most 500 characters without NUL.
    pub note: String,
    /// Only if there are exactly so many.
    pub expected_on_hand: Option<i64>,
    /// Only if it was not done before under this key, of 1 to 255 characters without NUL.
    pub idempotency_key: Option<String>,
}

/// Why stock was not adjusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was not asked for properly.
    #[error("{}", .0.message)]
    Invalid(Invalid),
    /// It never existed or was deleted.
    #[error("there is no product {0}")]
    Unknown(i64),
    /// There are more or fewer than expected: this is what there is.
    #[error("product {} has {} on hand, which is not what was expected", .0.id, .0.on_hand)]
    Stale(Box<Product>),
    /// Fewer than nothing, or than what is held for orders, would be left of this.
    #[error("product {} has {} on hand, {} of them held for orders: that many cannot be taken away", .0.id, .0.on_hand, .0.reserved)]
    Oversold(Box<Product>),
    /// More than [`MAX_ON_HAND`] would be there.
    #[error("product {} has {} on hand, and there can be at most {MAX_ON_HAND}", .0.id, .0.on_hand)]
    TooMany(Box<Product>),
    /// The key was used for another adjustment.
    #[error("the idempotency key {0:?} was used for another adjustment")]
    KeyReused(String),
    /// The database failed.
    #[error("the ledger cannot be reached")]
    Database(#[from] sqlx::Error),
}

/// Adjusts stock and books the movement. Under a key that was used for the same adjustment it changes nothing, and
/// answers with the levels that one left.
///
/// # Errors
/// See [`Error`]. What is refused does not use up its key.
pub async fn adjust(conn: &mut PgConnection, adjustment: &Adjustment, cause: &Cause) -> Result<Product, Error> {
    adjustment.check().map_err(Error::Invalid)?;
    let id = adjustment.product_id;
    let product = product::lock_stock(conn, id).await?.ok_or(Error::Unknown(id))?;
    if let Some(key) = &adjustment.idempotency_key
        && let Some(first) = first_answer(conn, key).await?
    {
        return first.answer_to(adjustment, product);
    }
    let Some(on_hand) = adjustment.result(&product)? else {
        return Err(Error::Oversold(Box::new(product)));
    };
    let product = Product { on_hand, ..product };
    sqlx::query!("update stock set on_hand = $2 where product_id = $1", id, on_hand).execute(&mut *conn).await?;
    sqlx::query!(
        "insert into movements (product_id, quantity, reason, note, actor)
         values ($1, $2, 'adjusted', $3, $4)",
        id,
        adjustment.delta,
        adjustment.note,
        cause.actor,
    )
    .execute(&mut *conn)
    .await?;
    if let Some(key) = &adjustment.idempotency_key {
        claim(conn, key, adjustment, &product).await?;
    }
    Ok(product)
}

impl Adjustment {
    fn check(&self) -> Result<(), Invalid> {
        if self.delta == 0 {
            return Err(Invalid::new("delta", "must not be 0"));
        }
        if self.delta.unsigned_abs() > MAX_ON_HAND.unsigned_abs() {
            return Err(Invalid::new("delta", format_args!("must be at most {MAX_ON_HAND} either way")));
        }
        text("reason", &self.note, MAX_NOTE_CHARS)?;
        match self.idempotency_key.as_deref() {
            None => Ok(()),
            Some("") => Err(Invalid::new("idempotencyKey", "is empty")),
            Some(key) => text("idempotencyKey", key, MAX_KEY_CHARS),
        }
    }

    /// How many there will be; none when that breaks the promise of the shop.
    fn result(&self, product: &Product) -> Result<Option<i64>, Error> {
        if self.expected_on_hand.is_some_and(|expected| expected != product.on_hand) {
            return Err(Error::Stale(Box::new(product.clone())));
        }
        let on_hand = product.on_hand.saturating_add(self.delta);
        if self.delta > 0 && on_hand > MAX_ON_HAND {
            return Err(Error::TooMany(Box::new(product.clone())));
        }
        Ok((on_hand >= product.reserved).then_some(on_hand))
    }
}

fn text(field: &'static str, text: &str, max_chars: usize) -> Result<(), Invalid> {
    if text.chars().nth(max_chars).is_some() {
        return Err(Invalid::new(field, format_args!("is longer than {max_chars} characters")));
    }
    if text.contains('\0') {
        return Err(Invalid::new(field, "contains NUL"));
    }
    Ok(())
}

/// What was done under a key, and the levels it left.
struct First {
    product_id: i64,
    delta: i64,
    note: String,
    expected_on_hand: Option<i64>,
    on_hand: i64,
    reserved: i64,
    idempotency_key: String,
}

impl First {
    fn answer_to(self, adjustment: &Adjustment, product: Product) -> Result<Product, Error> {
        let same = self.product_id == adjustment.product_id
            && self.delta == adjustment.delta
            && self.note == adjustment.note
            && self.expected_on_hand == adjustment.expected_on_hand;
        if !same {
            return Err(Error::KeyReused(self.idempotency_key));
        }
        Ok(Product { on_hand: self.on_hand, reserved: self.reserved, ..product })
    }
}

/// Whoever repeats an adjustment waits for the same stock row first, so what is read here is committed or ours.
async fn first_answer(conn: &mut PgConnection, key: &str) -> sqlx::Result<Option<First>> {
    sqlx::query_as!(
        First,
        "select product_id, delta, note, expected_on_hand, on_hand, reserved, idempotency_key
         from adjustments
         where idempotency_key = $1",
        key,
    )
    .fetch_optional(conn)
    .await
}

async fn claim(conn: &mut PgConnection, key: &str, adjustment: &Adjustment, left: &Product) -> Result<(), Error> {
    let claimed = sqlx::query!(
        "insert into adjustments (idempotency_key, product_id, delta, note, expected_on_hand, on_hand, reserved)
         values ($1, $2, $3, $4, $5, $6, $7)
         on conflict (idempotency_key) do nothing",
        key,
        adjustment.product_id,
        adjustment.delta,
        adjustment.note,
        adjustment.expected_on_hand,
        left.on_hand,
        left.reserved,
    )
    .execute(conn)
    .await?;
    // Somebody took it since it was looked for: for another product, because this one's stock is locked.
    if claimed.rows_affected() == 0 {
        return Err(Error::KeyReused(key.to_owned()));
    }
    Ok(())
}

/// Forgets idempotency keys older than `ttl_hours`, the oldest first; tells whether there may be more.
///
/// # Errors
/// Those of the database.
pub async fn forget_adjustments(conn: &mut PgConnection, ttl_hours: u32) -> sqlx::Result<bool> {
    let deleted = sqlx::query!(
        "with old as materialized (
           select idempotency_key
           from adjustments
           where created_at < now() - make_interval(hours => $1)
           order by created_at
           limit $2
           for update skip locked
         )
         delete from adjustments
         using old
         where adjustments.idempotency_key = old.idempotency_key",
        i32::try_from(ttl_hours).unwrap_or(i32::MAX),
        database::DELETED_AT_ONCE,
    )
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected() == database::DELETED_AT_ONCE as u64)
}
