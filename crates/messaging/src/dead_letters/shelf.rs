use anyhow::Context;
use std::hash::{DefaultHasher, Hash, Hasher};

use lapin::message::Delivery;
use lapin::options::{BasicAckOptions, BasicGetOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection};

use super::{REASON_HEADER, lasting, own_headers};
use crate::Publisher;
use crate::publisher::{CONFIRM_TIMEOUT, Frame, message_id};
use crate::session::answered;

/// A message in a dead-letter queue.
#[derive(Debug)]
pub struct DeadLetter {
    /// Names it: a digest of its id and its body. Equal messages share one.
    pub id: String,
    /// Why it is dead.
    pub reason: String,
    /// The message as it came.
    pub delivery: Delivery,
}

/// The dead letters of one queue, held while one looks at them: nobody else sees them until this is dropped.
#[derive(Debug)]
pub struct Shelf<'c> {
    connection: &'c Connection,
    queue: &'static str,
    channel: Channel,
    letters: Vec<DeadLetter>,
}

impl<'c> Shelf<'c> {
    /// Takes up to `limit` dead letters of `queue` off its dead-letter queue, oldest first.
    ///
    /// # Errors
    /// When the connection breaks, the queue does not exist, or a letter cannot be read.
    pub async fn open(connection: &'c Connection, queue: &'static str, limit: usize) -> anyhow::Result<Self> {
        let channel = answered(connection, connection.create_channel()).await?;
        let dead = events::queues::dead(queue);
        let mut letters = Vec::new();
        while letters.len() < limit {
            let getting = answered(connection, channel.basic_get(dead.as_str().into(), BasicGetOptions::default()));
            let got = getting.await.with_context(|| {
                let number = letters.len() + 1;
                format!("letter {number} of {dead} cannot be read; the management UI can take it away (Get messages)")
            })?;
            let Some(message) = got else { break };
            letters.push(DeadLetter::read(message.delivery));
        }
        Ok(Self { connection, queue, channel, letters })
    }

    /// The dead letters, oldest first.
    pub fn letters(&self) -> &[DeadLetter] {
        &self.letters
    }

    /// Publishes the chosen ones to the queue they came from, without the reason, and takes them off the shelf once
    /// that is confirmed. Tells how many.
    ///
    /// # Errors
    /// When the connection breaks or the queue is gone; what was not confirmed stays.
    pub async fn replay(&self, chosen: impl Fn(&DeadLetter) -> bool) -> anyhow::Result<usize> {
        let publisher = Publisher::open(self.connection, "dead-letters").await?;
        let exchange = events::queues::replay(self.queue);
        let mut count = 0;
        for letter in self.letters.iter().filter(|letter| chosen(letter)) {
            let properties = &letter.delivery.properties;
            let frame = Frame {
                exchange: &exchange,
                routing_key: self.queue.into(),
                mandatory: true,
                body: &letter.delivery.data,
                properties: lasting(properties).with_headers(own_headers(properties)),
            };
            let sent = publisher.send_all(vec![frame]).await?;
            anyhow::ensure!(sent.wait(CONFIRM_TIMEOUT).await?.is_none(), "the queue {} is gone or full", self.queue);
            self.remove(letter).await?;
            count += 1;
        }
        Ok(count)
    }

    /// Takes the chosen ones away for good. Tells how many.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn purge(&self, chosen: impl Fn(&DeadLetter) -> bool) -> lapin::Result<usize> {
        let mut count = 0;
        for letter in self.letters.iter().filter(|letter| chosen(letter)) {
            self.remove(letter).await?;
            count += 1;
        }
        Ok(count)
    }

    /// Puts back what was not taken away, and waits until what was is gone for good.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn close(self) -> anyhow::Result<()> {
        const SUCCESS: u16 = 200;
        answered(self.connection, self.channel.close(SUCCESS, "bye".into())).await
    }

    async fn remove(&self, letter: &DeadLetter) -> lapin::Result<()> {
        self.channel.basic_ack(letter.delivery.delivery_tag, BasicAckOptions { multiple: false }).await?;
        Ok(())
    }
}

impl DeadLetter {
    fn read(delivery: Delivery) -> Self {
        let headers = delivery.properties.headers().as_ref();
        let header = |name| headers.and_then(|headers| text(headers, name));
        let reason = header(REASON_HEADER)
            .or_else(|| last_death(headers.as_ref()?).map(|death| format!("the broker's: {death}")))
            .unwrap_or_else(|| "unknown".into());
        let mut hasher = DefaultHasher::new();
        (message_id(&delivery.properties), &delivery.data).hash(&mut hasher);
        Self { id: format!("{:016x}", hasher.finish()), reason, delivery }
    }
}

/// Why the broker moved a message last. It may have moved it before, from a retry queue.
fn last_death(headers: &FieldTable) -> Option<String> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else { return None };
    let AMQPValue::FieldTable(last) = deaths.as_slice().first()? else { return None };
    text(last, "reason")
}

fn text(headers: &FieldTable, name: &str) -> Option<String> {
    match headers.inner().get(name)? {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use lapin::types::FieldArray;

    use super::*;

    #[test]
    fn the_brokers_reason_is_that_of_its_last_move() {
        let death = |reason: &str| {
            let mut death = FieldTable::default();
            death.insert("reason".into(), AMQPValue::LongString(reason.into()));
            AMQPValue::FieldTable(death)
        };
        let mut headers = FieldTable::default();
        headers.insert("x-first-death-reason".into(), AMQPValue::LongString("expired".into()));
        let deaths = FieldArray::from(vec![death("delivery_limit"), death("expired")]);
        headers.insert("x-death".into(), AMQPValue::FieldArray(deaths));
        let mut delivery = Delivery::mock(1, "".into(), "".into(), false, Vec::new());
        delivery.properties = delivery.properties.with_headers(headers);
        assert_eq!(DeadLetter::read(delivery).reason, "the broker's: delivery_limit");
    }
}
