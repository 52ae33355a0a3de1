use async_graphql::dataloader::DataLoader;
use async_graphql::{Context, Enum, ID, InputObject, Object, Result};
use chrono::{DateTime, Utc};
use database::Pool;
use events::Item;
use graphql::{Id, Refusal};
use rust_decimal::Decimal;

use super::error::refused;
use super::loaders::{Lines, Payments, Steps};
use crate::checkout::{self, Basket};
use crate::explain::explain;
use crate::status::Status;
use crate::{order, payment};

/// So many of a product.
#[derive(Debug, InputObject)]
pub(super) struct ItemInput {
    /// The product's id in inventory.
    pub(super) product_id: Id,
    /// How many of it: 1 to 1 000 000.
    pub(super) quantity: i32,
}

/// A number as GraphQL's `Int`, which has 32 bits: beyond them, where only an absurd event comes, the nearest one.
fn int(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(if number < 0 { i32::MIN } else { i32::MAX })
}

/// An amount with two decimals, which zero comes from the database without.
fn cents(mut amount: Decimal) -> Decimal {
    amount.rescale(2);
    amount
}

pub(super) fn basket(items: &[ItemInput]) -> Result<Basket, Refusal> {
    let items = items.iter().map(|item| Item { product_id: item.product_id.0, quantity: item.quantity.into() });
    Basket::of(items).map_err(|reason| refused(&reason))
}

/// How many items an order counts for in a request's complexity. A few have up to 1 000, most have less than ten.
const TYPICAL_ITEMS: usize = 10;

/// The same for the steps of its timeline.
const TYPICAL_STEPS: usize = 4;

/// What an order is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "Status")]
pub(super) enum OrderStatus {
    /// Placed, and not yet answered by inventory.
    Pending,
    /// Its stock is held for it, and it is to be paid.
    Confirmed,
    /// It is paid.
    Completed,
    /// Its payment was given back, or is on its way back; `reason` says why.
    Refunded,
    /// It will not be fulfilled and costs nothing; `reason` says why.
    Cancelled,
}

/// What a payment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "payment::Status")]
pub(super) enum PaymentStatus {
    /// To be made.
    Due,
    /// Made.
    Paid,
    /// Declined by the provider.
    Declined,
    /// Never tried, because the order was cancelled before.
    Cancelled,
    /// To be given back, or kept from being made.
    Returning,
    /// Given back, or never made.
    Returned,
}

pub(super) struct Order(pub(super) order::Order);

/// An order. Amounts are in the shop's currency.
#[Object]
impl Order {
    /// Its id: `ORD-` and 26 letters and digits. Ids sort by age.
    async fn id(&self) -> ID {
        ID::from(&self.0.id)
    }

    /// The account that placed it; null where that was before there were accounts.
    async fn user_id(&self) -> Option<ID> {
        self.0.user_id.map(ID::from)
    }

    /// What it is.
    async fn status(&self) -> OrderStatus {
        self.0.status.into()
    }

    /// What was ordered, one item a product, at the prices of that moment.
    #[graphql(complexity = "1 + TYPICAL_ITEMS * child_complexity")]
    async fn items(&self, ctx: &Context<'_>) -> Result<Vec<OrderItem>> {
        let lines = ctx.data::<DataLoader<Lines>>()?.load_one(self.0.id.clone()).await?;
        Ok(lines.unwrap_or_default().into_iter().map(OrderItem).collect())
    }

    /// What its items add up to.
    async fn subtotal(&self) -> Decimal {
        cents(self.0.subtotal)
    }

    /// The fee on the subtotal.
    async fn fee(&self) -> Decimal {
        cents(self.0.fee)
    }

    /// What is to be paid: subtotal and fee.
    async fn total(&self) -> Decimal {
        cents(self.0.total)
    }

    /// What the payment is to be made with, as the customer said.
    async fn payment_reference(&self) -> Option<&str> {
        self.0.payment_reference.as_deref()
    }

    /// Its payment; null until its stock is held.
    async fn payment(&self, ctx: &Context<'_>) -> Result<Option<Payment>> {
        Ok(ctx.data::<DataLoader<Payments>>()?.load_one(self.0.id.clone()).await?.map(Payment))
    }

    /// How it stands, in one sentence: what it waits for, and since when.
    async fn explain(&self, ctx: &Context<'_>) -> Result<String> {
        let payment = ctx.data::<DataLoader<Payments>>()?.load_one(self.0.id.clone()).await?;
        Ok(explain(&self.0, payment.as_ref()))
    }

    /// Why it is cancelled or refunded, for people.
    async fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    /// The products of which there was not enough, where that is why it is cancelled.
    #[graphql(complexity = "1 + TYPICAL_ITEMS * child_complexity")]
    async fn shortages(&self) -> Vec<Shortage> {
        self.0.shortages.iter().flat_map(|shortages| shortages.iter().copied().map(Shortage)).collect()
    }

    /// Until when its stock is held, or was.
    async fn expires_at(&self) -> Option<DateTime<Utc>> {
        self.0.expires_at
    }

    /// When it was placed.
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// When it took its status.
    async fn updated_at(&self) -> DateTime<Utc> {
        self.0.updated_at
    }

    /// Each status it took, oldest first.
    #[graphql(complexity = "1 + TYPICAL_STEPS * child_complexity")]
    async fn timeline(&self, ctx: &Context<'_>) -> Result<Vec<Step>> {
        let steps = ctx.data::<DataLoader<Steps>>()?.load_one(self.0.id.clone()).await?;
        Ok(steps.unwrap_or_default().into_iter().map(Step).collect())
    }
}

pub(super) struct Payment(payment::Payment);

/// The payment of an order.
#[Object]
impl Payment {
    /// What it is.
    async fn status(&self) -> PaymentStatus {
        self.0.status.into()
    }

    /// How much.
    async fn amount(&self) -> Decimal {
        cents(self.0.amount)
    }

    /// How often it was tried to make it, or, once it is to be given back, to give it back.
    async fn attempts(&self) -> i32 {
        self.0.attempts
    }

    /// When it is tried next. Null where nothing is left to do.
    async fn next_attempt_at(&self) -> Option<DateTime<Utc>> {
        self.0.next_attempt_at
    }

    /// When it took its status.
    async fn updated_at(&self) -> DateTime<Utc> {
        self.0.updated_at
    }
}

pub(super) struct OrderItem(order::Line);

/// So many of a product, as it was when it was ordered.
#[Object]
impl OrderItem {
    /// The product's id in inventory.
    async fn product_id(&self) -> Id {
        Id(self.0.product_id)
    }

    /// Its stock keeping unit.
    async fn sku(&self) -> &str {
        &self.0.sku
    }

    /// Its name.
    async fn name(&self) -> &str {
        &self.0.name
    }

    /// How many.
    async fn quantity(&self) -> i32 {
        int(self.0.quantity)
    }

    /// What one of it cost.
    async fn unit_price(&self) -> Decimal {
        cents(self.0.unit_price)
    }

    /// What all of them cost.
    async fn total(&self) -> Decimal {
        cents(self.0.unit_price * Decimal::from(self.0.quantity))
    }

    /// The version of the product in the catalogue that its price is from.
    async fn catalogue_version(&self) -> i32 {
        int(self.0.catalogue_version)
    }
}

pub(super) struct Shortage(::events::inventory::Shortage);

/// A product of which there was not enough.
#[Object]
impl Shortage {
    /// The product's id in inventory.
    async fn product_id(&self) -> Id {
        Id(self.0.product_id)
    }

    /// How many were ordered.
    async fn requested(&self) -> i32 {
        int(self.0.requested)
    }

    /// How many there were; 0 where the product does not exist.
    async fn available(&self) -> i32 {
        int(self.0.available)
    }
}

pub(super) struct Step(order::Step);

/// A status an order took, and by what.
#[Object]
impl Step {
    /// The status.
    async fn status(&self) -> OrderStatus {
        self.0.status.into()
    }

    /// By what: a mutation such as `createOrder`, an event such as `StockReserved`, or `paid`, `declined`, `expired`, `unanswered`.
    async fn cause(&self) -> &str {
        &self.0.cause
    }

    /// Who did it, by their account. Null where an event, the payment or the time did.
    async fn actor_id(&self) -> Option<ID> {
        self.0.actor_id.map(ID::from)
    }

    /// The id of the message that told of it, or else of the one that tells of it.
    async fn message_id(&self) -> Option<&str> {
        self.0.message_id.as_deref()
    }

    /// The trace it happened in, as 32 hexadecimal digits: what to look for in the logs.
    async fn trace_id(&self) -> &str {
        &self.0.trace_id
    }

    /// When.
    async fn at(&self) -> DateTime<Utc> {
        self.0.at
    }
}

pub(super) struct Quote(pub(super) checkout::Quote);

/// What items would cost now.
#[Object]
impl Quote {
    /// The items, one a product.
    async fn items(&self) -> Vec<QuoteItem<'_>> {
        self.0.lines.iter().map(QuoteItem).collect()
    }

    /// What the items add up to.
    async fn subtotal(&self) -> Decimal {
        cents(self.0.subtotal)
    }

    /// The fee on the subtotal.
    async fn fee(&self) -> Decimal {
        cents(self.0.fee)
    }

    /// What would have to be paid: subtotal and fee.
    async fn total(&self) -> Decimal {
        cents(self.0.total)
    }
}

pub(super) struct QuoteItem<'a>(&'a checkout::Line);

/// So many of a product, as it is sold now.
#[Object]
impl QuoteItem<'_> {
    /// The product's id in inventory.
    async fn product_id(&self) -> Id {
        Id(self.0.product.product_id)
    }

    /// Its stock keeping unit.
    async fn sku(&self) -> &str {
        &self.0.product.sku
    }

    /// Its name.
    async fn name(&self) -> &str {
        &self.0.product.name
    }

    /// How many.
    async fn quantity(&self) -> i32 {
        int(self.0.quantity)
    }

    /// What one of it costs.
    async fn unit_price(&self) -> Decimal {
        cents(self.0.product.price)
    }

    /// What all of them cost.
    async fn total(&self) -> Decimal {
        cents(self.0.total())
    }
}

pub(super) struct Count(pub(super) order::Filter);

/// What a list of orders tells beside its page.
#[Object]
impl Count {
    /// How many orders there are on all pages together. Counted only when asked for.
    #[graphql(complexity = "100")]
    async fn total_count(&self, ctx: &Context<'_>) -> Result<i32> {
        let mut conn = ctx.data::<Pool>()?.acquire().await?;
        Ok(int(order::count(&mut conn, self.0).await?))
    }
}
