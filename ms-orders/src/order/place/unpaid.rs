//! How much one account may have unpaid at once. Whoever orders and never pays holds stock that others cannot buy.

use std::collections::{HashMap, HashSet};

use auth::Role;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{NewOrder, PlaceError};
use crate::config::UnpaidLimits;

/// The advisory locks of accounts: "acct" in ASCII.
const LOCKS: i32 = 0x6163_6374;

/// What an account has unpaid: its PENDING and CONFIRMED orders.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Unpaid {
    /// How many orders.
    pub orders: i64,
    /// How many units in them.
    pub units: i64,
}

/// An order would have its account exceed a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OverLimit {
    /// The limit on orders.
    #[error("this account has {unpaid} unpaid orders, and may have {limit}: wait until some are paid, or cancel some")]
    Orders {
        /// The most there may be.
        limit: i64,
        /// How many there are.
        unpaid: i64,
    },
    /// The limit on units.
    #[error("this account has {unpaid} units in unpaid orders, and may have {limit}: this order asks for {asked}")]
    Units {
        /// The most there may be.
        limit: i64,
        /// How many there are.
        unpaid: i64,
        /// How many the order asks for: alone more than the limit, or not.
        asked: i64,
    },
}

impl UnpaidLimits {
    /// What an account has unpaid with one more order, of so many units.
    fn add(self, unpaid: Unpaid, asked: i64) -> Result<Unpaid, OverLimit> {
        let Unpaid { orders, units } = unpaid;
        let (max_orders, max_units) = (i64::from(self.max_unpaid_orders), i64::from(self.max_unpaid_units));
        if max_orders > 0 && orders >= max_orders {
            return Err(OverLimit::Orders { limit: max_orders, unpaid: orders });
        }
        if max_units > 0 && units + asked > max_units {
            return Err(OverLimit::Units { limit: max_units, unpaid: units, asked });
        }
        Ok(Unpaid { orders: orders + 1, units: units + asked })
    }

    fn exist(self) -> bool {
        self.max_unpaid_orders > 0 || self.max_unpaid_units > 0
    }
}

/// The accounts of a batch that have limits. This transaction has locked them, so that nobody else places orders for them
/// until it ends, except those that another transaction had locked before.
pub(super) struct Accounts {
    limits: UnpaidLimits,
    unpaid: HashMap<Uuid, Unpaid>,
    busy: HashSet<Uuid>,
}

impl Accounts {
    /// Locks the accounts of these orders, and waits for none: the orders of an account that another transaction has locked
    /// must not keep the others waiting. An ADMIN's orders have no limits: they place them for others.
    pub(super) async fn lock(conn: &mut PgConnection, new: &[NewOrder], limits: UnpaidLimits) -> sqlx::Result<Self> {
        let limited = new.iter().map(|new| new.caller).filter(|caller| limits.exist() && caller.role == Role::User);
        let user_ids: HashSet<Uuid> = limited.map(|caller| caller.user_id).collect();
        let keys: HashSet<i32> = user_ids.iter().map(lock_key).collect();
        let mut busy_keys = Vec::new();
        if !keys.is_empty() {
            // The lock comes before anything is read, because a statement sees what was committed when it began.
            busy_keys = sqlx::query_scalar!(
                r#"select key as "key!" from unnest($2::int[]) as key where not pg_try_advisory_xact_lock($1, key)"#,
                LOCKS,
                &Vec::from_iter(keys),
            )
            .fetch_all(conn)
            .await?;
        }
        let (busy, locked): (HashSet<_>, HashSet<_>) =
            user_ids.into_iter().partition(|user_id| busy_keys.contains(&lock_key(user_id)));
        let unpaid = locked.into_iter().map(|user_id| (user_id, Unpaid::default())).collect();
        Ok(Self { limits, unpaid, busy })
    }

    /// Counts what the locked ones have unpaid. Of each account it reads no more orders than the limit.
    pub(super) async fn count(&mut self, conn: &mut PgConnection) -> sqlx::Result<()> {
        if self.unpaid.is_empty() {
            return Ok(());
        }
        let max_orders = self.limits.max_unpaid_orders;
        let rows = sqlx::query!(
            r#"select account.user_id as "user_id!", unpaid.orders as "orders!", unpaid.units as "units!"
               from unnest($1::uuid[]) as account (user_id),
                 lateral (
                   select count(*) as orders, coalesce(sum(units), 0)::bigint as units
                   from (
                     select units
                     from orders
                     where orders.user_id = account.user_id and status in ('pending', 'confirmed')
                     limit $2
                   ) as one
                 ) as unpaid"#,
            &self.unpaid.keys().copied().collect::<Vec<_>>(),
            (max_orders > 0).then_some(i64::from(max_orders)),
        )
        .fetch_all(conn)
        .await?;
        let counted = rows.into_iter().map(|row| (row.user_id, Unpaid { orders: row.orders, units: row.units }));
        self.unpaid.extend(counted);
        Ok(())
    }

    /// Counts one more order, if its account is locked and may have it.
    pub(super) fn add(&mut self, new: &NewOrder) -> Result<(), PlaceError> {
        let user_id = &new.caller.user_id;
        if new.caller.role != Role::User {
            return Ok(());
        }
        if self.busy.contains(user_id) {
            return Err(PlaceError::AccountBusy);
        }
        if let Some(unpaid) = self.unpaid.get_mut(user_id) {
            *unpaid = self.limits.add(*unpaid, new.basket.units())?;
        }
        Ok(())
    }
}

/// Accounts that share a key keep each other busy, and nothing else.
fn lock_key(user_id: &Uuid) -> i32 {
    let [.., a, b, c, d] = *user_id.as_bytes();
    i32::from_be_bytes([a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_has_as_many_orders_and_units_unpaid_as_it_may_and_no_more() {
        let limits = |max_unpaid_orders, max_unpaid_units| UnpaidLimits { max_unpaid_orders, max_unpaid_units };
        let unpaid = |orders, units| Unpaid { orders, units };
        let orders = |limit, unpaid| OverLimit::Orders { limit, unpaid };
        let units = |limit, unpaid, asked| OverLimit::Units { limit, unpaid, asked };
        for (limits, has, asked, comes) in [
            (limits(3, 10), unpaid(0, 0), 10, Ok(unpaid(1, 10))),
            (limits(3, 10), unpaid(2, 9), 1, Ok(unpaid(3, 10))),
            (limits(3, 10), unpaid(3, 3), 1, Err(orders(3, 3))),
            (limits(3, 10), unpaid(4, 3), 1, Err(orders(3, 4))),
            (limits(3, 10), unpaid(2, 9), 2, Err(units(10, 9, 2))),
            (limits(3, 10), unpaid(0, 0), 11, Err(units(10, 0, 11))),
            (limits(0, 10), unpaid(1_000, 9), 1, Ok(unpaid(1_001, 10))),
            (limits(3, 0), unpaid(2, 1_000), 1_000_000_000, Ok(unpaid(3, 1_000_001_000))),
            (limits(0, 0), unpaid(7, 7), 7, Ok(unpaid(8, 14))),
        ] {
            assert_eq!(limits.add(has, asked), comes, "{limits:?} {has:?} {asked}");
        }
    }
}
