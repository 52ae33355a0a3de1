//! Who asks.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::token::Refused;

/// What somebody is to the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Role {
    /// Orders, and sees their own orders.
    User,
    /// Manages products, stock, all orders and accounts.
    Admin,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::User => "USER",
            Self::Admin => "ADMIN",
        })
    }
}

/// Somebody who has proved who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// Their account.
    pub user_id: Uuid,
    /// What they are.
    pub role: Role,
}

impl Caller {
    /// Whether what belongs to an account is theirs to see: their own, and to an ADMIN all, also what belongs to nobody.
    pub fn may_see(&self, owner: Option<Uuid>) -> bool {
        self.role == Role::Admin || owner == Some(self.user_id)
    }
}

/// What a request says of who asks.
#[derive(Debug, Clone)]
pub enum Identity {
    /// It brings no token.
    Anonymous,
    /// It brings a token that proves it.
    Known(Caller),
    /// It brings a token that proves nothing. What is public is answered all the same.
    Refused(Refused),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_sees_their_own_and_an_admin_everything() {
        let [me, other] = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let user = Caller { user_id: me, role: Role::User };
        assert_eq!([Some(me), Some(other), None].map(|owner| user.may_see(owner)), [true, false, false]);
        let admin = Caller { user_id: me, role: Role::Admin };
        assert_eq!([Some(me), Some(other), None].map(|owner| admin.may_see(owner)), [true, true, true]);
    }
}
