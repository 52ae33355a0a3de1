//! What can be changed.

use std::time::Instant;

use ::graphql::{CHANGE_COST, Refusal};
use async_graphql::{Context, ID, Object, Result};
use auth::guard::caller;
use boot::config::SecretString;
use database::{Pool, Transaction};
use trace::Trace;
use uuid::Uuid;

use super::account::{Role, Session, User};
use super::context::{begin, client};
use super::error::{hashing, not_changed, slow, weak, wrong_password};
use crate::account::{self, Account};
use crate::config::Login;
use crate::email::Email;
use crate::password::{Hasher, Password};
use crate::session::{self, RefreshToken, Refreshed};
use crate::signing::Signing;
use crate::throttle::{Attempt, Throttle};

/// What it costs to hash a password: a request holds two of them.
const PASSWORD_COST: usize = 8_000;

/// The root of mutations.
#[derive(Debug)]
pub struct Mutation;

/// What can be changed about accounts.
#[Object]
impl Mutation {
    /// Opens an account with the role USER, and signs in to it. CONFLICT if the address has an account.
    #[graphql(complexity = "PASSWORD_COST + child_complexity")]
    async fn register(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "An e-mail address. Upper and lower case are the same.")] email: String,
        #[graphql(desc = "8 to 128 characters, whatever they are; not one of the most common passwords.")]
        password: String,
    ) -> Result<Session> {
        let client = client(ctx)?;
        ctx.data::<Throttle>()?.client(&client).map_err(slow)?;
        let email: Email =
            email.parse().map_err(|error| Refusal::invalid(format!("email {error}")).with("field", "email"))?;
        let password = Password::choose(password.into()).map_err(|error| weak(error, "password"))?;
        let hash = ctx.data::<Hasher>()?.hash(password).await.map_err(hashing)?;
        let mut tx = begin(ctx).await?;
        let role = account::Role::User;
        let account = account::open(&mut tx, &email, &hash, role, *ctx.data::<Trace>()?).await.map_err(not_changed)?;
        sign_in(ctx, tx, account, &client).await
    }

    /// Signs in. UNAUTHENTICATED if the address or the password is wrong, RATE_LIMITED, with
    /// `extensions.retryAfterSeconds`, after too many wrong ones.
    #[graphql(complexity = "PASSWORD_COST + child_complexity")]
    async fn login(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The account's e-mail address.")] email: String,
        #[graphql(desc = "Its password.")] password: String,
    ) -> Result<Session> {
        let email: Email = email.parse().map_err(|_| wrong_password())?;
        let proof = prove(ctx, email.as_str(), password.into()).await?;
        let (tx, account) = enter(ctx, proof).await?;
        sign_in(ctx, tx, account, &client(ctx)?).await
    }

    /// Trades a refresh token for a new session, whose tokens replace the old ones. UNAUTHENTICATED if it was traded
    /// before: then one of two had stolen it, and the session has ended for both.
    #[graphql(complexity = "CHANGE_COST + child_complexity")]
    async fn refresh(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The newest refresh token of the session.")] refresh_token: String,
    ) -> Result<Session> {
        let mut tx = begin(ctx).await?;
        match session::refresh(&mut tx, &refresh_token, *ctx.data::<Trace>()?).await.map_err(fault)? {
            Refreshed::Fresh(account, token) => {
                let session = signed(ctx, &mut tx, *account, token).await?;
                tx.commit().await?;
                Ok(session)
            }
            Refreshed::Refused => Err(Refusal::unauthenticated("the session has ended: sign in again").into()),
            Refreshed::Stolen => {
                tx.commit().await?;
                let message = "this refresh token was used before, so its session has ended: sign in again";
                Err(Refusal::unauthenticated(message).into())
            }
        }
    }

    /// Ends a session: its refresh tokens are worth nothing any more. Its last access token ends by itself, at most 15
    /// minutes later. True, whether there was anything to end or not.
    #[graphql(complexity = "CHANGE_COST")]
    async fn logout(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "A refresh token of the session.")] refresh_token: String,
    ) -> Result<bool> {
        let mut tx = begin(ctx).await?;
        session::close(&mut tx, &refresh_token).await?;
        tx.commit().await?;
        Ok(true)
    }

    /// Gives the account of whoever asks another password. All its sessions and tokens end; the answer is a new session.
    /// UNAUTHENTICATED if the current password is wrong.
    #[graphql(guard = "auth::guard::user", complexity = "2 * PASSWORD_COST + child_complexity")]
    async fn change_password(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The password until now.")] current_password: String,
        #[graphql(desc = "The password from now on, by the same rules as in register.")] new_password: String,
    ) -> Result<Session> {
        let new = Password::choose(new_password.into()).map_err(|error| weak(error, "newPassword"))?;
        let mut conn = ctx.data::<Pool>()?.acquire().await?;
        let me = account::find(&mut conn, caller(ctx)?.user_id).await?.ok_or_else(wrong_password)?;
        drop(conn);
        // Whoever is slowed has nothing hashed.
        let proof = prove(ctx, &me.email, current_password.into()).await?;
        let hash = ctx.data::<Hasher>()?.hash(new).await.map_err(hashing)?;
        let (mut tx, account) = enter(ctx, proof).await?;
        let changed = account::set_password(&mut tx, account.id, &hash, *ctx.data::<Trace>()?).await;
        sign_in(ctx, tx, changed.map_err(not_changed)?, &client(ctx)?).await
    }

    /// Gives an account another role. Its tokens end within seconds, and the next ones say the new role. NOT_FOUND if
    /// there is none; CONFLICT if no ADMIN would be left. Needs the role ADMIN.
    #[graphql(guard = "auth::guard::admin", complexity = "CHANGE_COST + child_complexity")]
    async fn set_role(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The account's id.")] user_id: ID,
        #[graphql(desc = "What it is to be.")] role: Role,
    ) -> Result<User> {
        let (id, actor, trace) = (id(&user_id)?, caller(ctx)?.user_id, *ctx.data::<Trace>()?);
        let mut tx = begin(ctx).await?;
        let account = account::set_role(&mut tx, id, role.into(), actor, trace).await.map_err(not_changed)?;
        commit(ctx, tx).await?;
        Ok(User(account))
    }

    /// Keeps an account from being used. Its sessions end at once and its tokens within seconds; its orders stay.
    /// NOT_FOUND if there is none; CONFLICT if no ADMIN would be left. Needs the role ADMIN.
    #[graphql(guard = "auth::guard::admin", complexity = "CHANGE_COST + child_complexity")]
    async fn disable_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The account's id.")] user_id: ID,
    ) -> Result<User> {
        let (id, actor, trace) = (id(&user_id)?, caller(ctx)?.user_id, *ctx.data::<Trace>()?);
        let mut tx = begin(ctx).await?;
        let account = account::disable(&mut tx, id, actor, trace).await.map_err(not_changed)?;
        commit(ctx, tx).await?;
        Ok(User(account))
    }

    /// Lets an account be used again; its owner has to sign in. NOT_FOUND if there is none. Needs the role ADMIN.
    #[graphql(guard = "auth::guard::admin", complexity = "CHANGE_COST + child_complexity")]
    async fn enable_user(&self, ctx: &Context<'_>, #[graphql(desc = "The account's id.")] user_id: ID) -> Result<User> {
        let (id, actor, trace) = (id(&user_id)?, caller(ctx)?.user_id, *ctx.data::<Trace>()?);
        let mut tx = begin(ctx).await?;
        let account = account::enable(&mut tx, id, actor, trace).await.map_err(not_changed)?;
        commit(ctx, tx).await?;
        Ok(User(account))
    }
}

/// Somebody knows the password of an account.
struct Proof {
    user_id: Uuid,
    /// What was stored of it at that moment.
    stored: String,
    attempt: Attempt,
}

/// Whether this is the password of the account of this address. Takes the same time whichever is wrong.
async fn prove(ctx: &Context<'_>, email: &str, password: SecretString) -> Result<Proof> {
    let (throttle, client) = (ctx.data::<Throttle>()?, client(ctx)?);
    throttle.client(&client).map_err(slow)?;
    let mut tx = begin(ctx).await?;
    let is_known = session::is_known_client(&mut tx, email, &client).await?;
    let attempt: Attempt = throttle.attempt(email, &client, is_known, Instant::now()).map_err(slow)?;
    let (id, stored) = account::find_password(&mut tx, email).await?.unzip();
    // Nobody else is to wait for a connection while a password is hashed.
    tx.commit().await?;
    let is_right = match ctx.data::<Hasher>()?.is(password, stored.clone()).await {
        Ok(is_right) => is_right,
        Err(error) => {
            throttle.withdrawn(attempt);
            return Err(hashing(error));
        }
    };
    match (is_right, id, stored) {
        (true, Some(user_id), Some(stored)) => Ok(Proof { user_id, stored, attempt }),
        _ => Err(failed()),
    }
}

/// The account, and a transaction in which nobody else changes it. It may have been disabled, or have got another password,
/// since that was proved.
async fn enter(ctx: &Context<'_>, proof: Proof) -> Result<(Transaction, Account)> {
    let Proof { user_id, stored, attempt } = proof;
    let mut tx = begin(ctx).await?;
    let account = account::enter(&mut tx, user_id, &stored).await?.ok_or_else(failed)?;
    ctx.data::<Throttle>()?.succeeded(attempt);
    metrics::counter!("logins_total", "outcome" => "right").increment(1);
    Ok((tx, account))
}

fn failed() -> async_graphql::Error {
    metrics::counter!("logins_total", "outcome" => "wrong").increment(1);
    wrong_password()
}

/// Opens a session and commits.
async fn sign_in(ctx: &Context<'_>, mut tx: Transaction, account: Account, client: &str) -> Result<Session> {
    let ttl_days = ctx.data::<Login>()?.session_ttl_days;
    let token = session::open(&mut tx, account.id, client, ttl_days).await.map_err(fault)?;
    let session = signed(ctx, &mut tx, account, token).await?;
    commit(ctx, tx).await?;
    Ok(session)
}

/// Signs an access token for a session that is opened or refreshed in this transaction.
async fn signed(ctx: &Context<'_>, tx: &mut Transaction, account: Account, token: RefreshToken) -> Result<Session> {
    let (access_token, seconds) = ctx.data::<Signing>()?.token(tx, &account).await.map_err(fault)?;
    Ok(Session {
        access_token,
        expires_in: i32::try_from(seconds)?,
        refresh_token: token.into_text(),
        user: User(account),
    })
}

/// Commits, and has everybody learn soon of tokens that count no more.
async fn commit(ctx: &Context<'_>, tx: Transaction) -> Result<()> {
    tx.commit().await?;
    ctx.data::<Signing>()?.keys().look_again();
    Ok(())
}

fn id(text: &ID) -> Result<Uuid> {
    let unknown = |_| Refusal::not_found(format!("there is no account {}", text.as_str())).with("field", "userId");
    Ok(Uuid::try_parse(text).map_err(unknown)?)
}

fn fault(error: anyhow::Error) -> async_graphql::Error {
    async_graphql::Error::new_with_source(error)
}
