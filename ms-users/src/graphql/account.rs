//! Accounts, what happened to them, and what whoever signs in gets.

use async_graphql::{Enum, ID, Object, SimpleObject};
use chrono::{DateTime, Utc};

use crate::account;

pub(super) struct User(pub(super) account::Account);

/// An account.
#[Object]
impl User {
    /// Its id, for ever. Orders and movements of stock tell by it whose they are and who caused them.
    async fn id(&self) -> ID {
        self.0.id.into()
    }

    /// Its e-mail address, in lower case. No two accounts have the same.
    async fn email(&self) -> &str {
        &self.0.email
    }

    /// What its owner may do.
    async fn role(&self) -> Role {
        self.0.role.into()
    }

    /// Since when it cannot be used. Null if it can.
    async fn disabled_at(&self) -> Option<DateTime<Utc>> {
        self.0.disabled_at
    }

    /// When it was opened.
    async fn created_at(&self) -> DateTime<Utc> {
        self.0.created_at
    }

    /// When it last changed.
    async fn updated_at(&self) -> DateTime<Utc> {
        self.0.updated_at
    }
}

/// What somebody is to the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "account::Role")]
pub(super) enum Role {
    /// Places orders, and sees and cancels their own.
    User,
    /// Manages products, stock, all orders and accounts.
    Admin,
}

/// Somebody is signed in.
#[derive(SimpleObject)]
pub(super) struct Session {
    /// Proves to all services who somebody is: `authorization: Bearer <accessToken>`.
    pub(super) access_token: String,
    /// How many seconds the access token is valid.
    pub(super) expires_in: i32,
    /// Gets the next session from `refresh`, once. To be kept secret.
    pub(super) refresh_token: String,
    /// Whose session it is.
    pub(super) user: User,
}

pub(super) struct AccountChange(pub(super) account::Recorded);

/// One thing that happened to an account.
#[Object]
impl AccountChange {
    /// The account.
    async fn user_id(&self) -> ID {
        self.0.user_id.into()
    }

    /// What happened.
    async fn change(&self) -> AccountChangeKind {
        self.0.change.into()
    }

    /// The role after it, where that changed.
    async fn role(&self) -> Option<Role> {
        self.0.role.map(Into::into)
    }

    /// The account that did it. Null where the service did.
    async fn actor_id(&self) -> Option<ID> {
        self.0.actor_id.map(ID::from)
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

/// What can happen to an account.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "account::Change")]
pub(super) enum AccountChangeKind {
    /// It was opened.
    Registered,
    /// It has another password, and all its sessions ended.
    PasswordChanged,
    /// It has another role.
    RoleChanged,
    /// It cannot be used any more, and all its sessions ended.
    Disabled,
    /// It can be used again.
    Enabled,
    /// One of its refresh tokens was used twice, so one of two had stolen it, and the session ended.
    SessionStolen,
}
