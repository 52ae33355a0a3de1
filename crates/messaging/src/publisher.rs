use std::borrow::Cow;
use std::pin::Pin;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures::FutureExt;
use futures::future::{MaybeDone, maybe_done};
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionStatus, PublisherConfirm};
use tokio::time::timeout;

use crate::session::{answered, unless_blocked};
use crate::{Outgoing, Trace};

/// How long the broker may take to confirm what was published. Beyond it the session is torn down and begun again,
/// so that a broker which accepts and never answers is no reason to wait for ever.
pub(crate) const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);

const PERSISTENT: u8 = 2;

/// Publishes persistent messages with confirms, on a channel of its own.
///
/// **Invariant:** all that is published of one batch is confirmed before anything of the next is published. lapin hands a
/// returned message to whichever confirm comes in next, so only a channel with one batch in flight can tell which batch a
/// returned message was in. Where in its batch it was is told by its `message_id`.
#[derive(Debug)]
pub struct Publisher<'c> {
    connection: &'c Connection,
    channel: Channel,
    app_id: ShortString,
}

/// A message as it is sent, also when it is sent again.
#[derive(Debug, Clone)]
pub(crate) struct Frame<'a> {
    pub(crate) exchange: &'a str,
    pub(crate) routing_key: Cow<'a, str>,
    pub(crate) mandatory: bool,
    pub(crate) body: &'a [u8],
    pub(crate) properties: BasicProperties,
}

/// Why a batch was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The connection or the channel broke.
    #[error("cannot publish")]
    Broker(#[from] lapin::Error),
    /// No confirm in time.
    #[error("the broker did not confirm within {} s", .0.as_secs())]
    Unconfirmed(Duration),
}

/// Confirms that have yet to come in.
#[must_use = "a message counts as published once it is confirmed"]
#[derive(Debug)]
pub struct Confirms {
    pending: Vec<PublisherConfirm>,
    connection: ConnectionStatus,
}

impl<'c> Publisher<'c> {
    /// Opens a channel in confirm mode. `app_id` names the service in each message.
    ///
    /// # Errors
    /// When the connection is broken, or the broker does not answer.
    pub async fn open(connection: &'c Connection, app_id: &str) -> anyhow::Result<Self> {
        let channel = open(connection).await?;
        Ok(Self { connection, channel, app_id: short(app_id).unwrap_or_default() })
    }

    /// Goes on with a new channel. A channel that was refused once because a queue is full is refused also after the limit
    /// of the queue was removed: RabbitMQ 3.10 tells a channel only that a queue fell below its limit.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub(crate) async fn reopen(&mut self) -> anyhow::Result<()> {
        self.channel = open(self.connection).await?;
        Ok(())
    }

    /// Hands messages to the broker, in order. One that is short of memory or disk is waited for.
    ///
    /// # Errors
    /// When the connection is broken, or takes nothing for 30 s.
    pub async fn publish<'a>(
        &self,
        messages: impl IntoIterator<Item = &'a Outgoing>,
    ) -> Result<Confirms, PublishError> {
        self.send_all(messages.into_iter().map(|message| self.frame(message)).collect()).await
    }

    pub(crate) fn frame<'a>(&self, message: &'a Outgoing) -> Frame<'a> {
        Frame {
            exchange: &message.exchange,
            routing_key: Cow::Borrowed(&message.routing_key),
            mandatory: message.mandatory,
            body: &message.body,
            properties: self.properties(message),
        }
    }

    /// Publishes messages and waits for their confirms, for at most `limit` in all. The broker may still take a message that is
    /// not confirmed by then. Its confirm could come in with those of the next batch, so [`reopen`](Self::reopen) must come
    /// before that.
    ///
    /// # Errors
    /// When the connection breaks.
    pub(crate) async fn publish_within(&self, messages: &[Outgoing], limit: Duration) -> lapin::Result<Unplaced> {
        let publish = async |message: &Outgoing| self.send(self.frame(message)).await?.await;
        let mut publishing = begin(messages.iter().map(publish));
        timeout(limit, finish(&mut publishing)).await.ok();
        let mut unplaced = Unplaced::default();
        for (at, publishing) in publishing.iter_mut().enumerate() {
            // It may have been confirmed while an earlier one was waited for.
            publishing.as_mut().now_or_never();
            match publishing.as_mut().take_output() {
                Some(confirmation) => unplaced.add(at, confirmation?),
                None => unplaced.unconfirmed.push(at),
            }
        }
        Ok(unplaced)
    }

    pub(crate) async fn send_all(&self, frames: Vec<Frame<'_>>) -> Result<Confirms, PublishError> {
        let sending = all(frames.into_iter().map(|frame| self.send(frame)).collect());
        let sent = unless_blocked(self.connection.status(), CONFIRM_TIMEOUT, sending).await;
        let pending = sent.ok_or(PublishError::Unconfirmed(CONFIRM_TIMEOUT))??;
        Ok(Confirms { pending, connection: self.connection.status().clone() })
    }

    async fn send(&self, frame: Frame<'_>) -> lapin::Result<PublisherConfirm> {
        let Frame { exchange, routing_key, mandatory, body, properties } = frame;
        let options = BasicPublishOptions { mandatory, immediate: false };
        self.channel.basic_publish(exchange.into(), (&*routing_key).into(), options, body, properties).await
    }

    fn properties(&self, message: &Outgoing) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert(Trace::HEADER.into(), AMQPValue::LongString(LongString::from(message.traceparent.as_str())));
        let properties = BasicProperties::default()
            .with_message_id(message.message_id.to_string().into())
            .with_type(message.event.as_ref().into())
            .with_timestamp(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
            .with_app_id(self.app_id.clone())
            .with_content_type("application/json".into())
            .with_delivery_mode(PERSISTENT)
            .with_headers(headers);
        // 64 characters of four bytes each are one byte too many for this property; the body has them all.
        match short(&message.key) {
            Some(key) => properties.with_correlation_id(key),
            None => properties,
        }
    }
}

async fn open(connection: &Connection) -> anyhow::Result<Channel> {
    let channel = answered(connection, connection.create_channel()).await?;
    answered(connection, channel.confirm_select(ConfirmSelectOptions::default())).await?;
    Ok(channel)
}

impl Confirms {
    /// Waits until the broker has answered for all messages, and tells which of them it has not placed.
    ///
    /// A broker that says that it is short of memory or disk is waited for beyond `limit`, for as long as it says so.
    ///
    /// # Errors
    /// When the connection breaks, or the broker is silent for longer than `limit`.
    pub async fn wait(self, limit: Duration) -> Result<Unplaced, PublishError> {
        let confirmed = unless_blocked(&self.connection, limit, all(self.pending)).await;
        let confirmations = confirmed.ok_or(PublishError::Unconfirmed(limit))??;
        let mut unplaced = Unplaced::default();
        for (at, confirmation) in confirmations.into_iter().enumerate() {
            unplaced.add(at, confirmation);
        }
        Ok(unplaced)
    }
}

/// Does all of them: begins them in order, then waits.
async fn all<T, F: Future<Output = lapin::Result<T>>>(futures: Vec<F>) -> lapin::Result<Vec<T>> {
    let mut begun = begin(futures);
    finish(&mut begun).await;
    begun.iter_mut().filter_map(|future| future.as_mut().take_output()).collect()
}

type Begun<F> = Vec<Pin<Box<MaybeDone<F>>>>;

/// Begins all of them in order. Whether one is done at once does not matter.
fn begin<F: Future>(futures: impl IntoIterator<Item = F>) -> Begun<F> {
    let mut begun: Begun<F> = futures.into_iter().map(|future| Box::pin(maybe_done(future))).collect();
    for future in &mut begun {
        future.as_mut().now_or_never();
    }
    begun
}

/// Waits for the last before the others: the broker takes and confirms messages in order as a rule, so that a batch wakes its
/// task once and not once a message.
async fn finish<F: Future>(begun: &mut Begun<F>) {
    if let Some(last) = begun.last_mut() {
        last.as_mut().await;
    }
    for future in begun {
        future.as_mut().await;
    }
}

/// What the broker did not take.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Unplaced {
    /// Refused by a queue that is full or has lost its leader, by the place in the batch. Others may have it.
    pub refused: Vec<usize>,
    /// Mandatory and bound to no queue, by the `message_id` it was published with; empty where that was none.
    pub returned: Vec<String>,
    /// Neither taken nor refused in time, by the place in the batch: the link is slow, or a queue has no quorum.
    pub unconfirmed: Vec<usize>,
}

impl Unplaced {
    fn add(&mut self, at: usize, confirmation: Confirmation) {
        if !confirmation.is_ack() {
            self.refused.push(at);
        }
        if let Some(message) = confirmation.take_message() {
            self.returned.push(message_id(&message.delivery.properties).to_owned());
        }
    }

    /// Whether the broker has taken all.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// The message's own id; empty where it has none.
pub(crate) fn message_id(properties: &BasicProperties) -> &str {
    properties.message_id().as_ref().map_or("", ShortString::as_str)
}

fn short(text: &str) -> Option<ShortString> {
    ShortString::try_new(text).ok()
}
