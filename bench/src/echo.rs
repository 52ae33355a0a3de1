//! The ceiling: a service that answers each order with what it was sent. It has no database, decides nothing and
//! cannot refuse anything; but its answers are persistent and confirmed before it acknowledges, as ours are.

use futures::StreamExt;
use futures::future::try_join_all;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use messaging::Trace;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::load;

const PERSISTENT: u8 = 2;

/// The most answered at once.
const BATCH: usize = 500;

/// Echoes until the connection breaks: bare, or with the properties our answers have, and mandatory as they are.
///
/// # Errors
/// When it does.
pub async fn serve(amqp_url: &str, with_properties: bool) -> anyhow::Result<()> {
    let connection = load::connect(amqp_url, "echo").await?;
    let channel = connection.create_channel().await?;
    let publishing = connection.create_channel().await?;
    publishing.confirm_select(ConfirmSelectOptions::default()).await?;
    channel.basic_qos(1_000, BasicQosOptions::default()).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let orders = channel.basic_consume(events::queues::ORDER_CREATED.into(), "echo".into(), options, arguments).await?;
    let (settle_next, mut unsettled) = mpsc::channel(16);

    let echoing = async {
        let mut batches = orders.ready_chunks(BATCH);
        while let Some(batch) = batches.next().await {
            let batch: Vec<Delivery> = batch.into_iter().collect::<Result<_, _>>()?;
            let sent = batch.iter().map(|order| {
                publishing.basic_publish(
                    events::inventory::EXCHANGE.into(),
                    load::RESERVED.into(),
                    BasicPublishOptions { mandatory: with_properties, immediate: false },
                    &order.data,
                    properties(with_properties),
                )
            });
            let confirms = try_join_all(sent).await?;
            let last = batch.last().map(|order| order.delivery_tag);
            settle_next.send((last, confirms)).await?;
        }
        anyhow::bail!("the broker ended the consumer")
    };
    let settling = async {
        while let Some((last, confirms)) = unsettled.recv().await {
            try_join_all(confirms).await?;
            if let Some(last) = last {
                channel.basic_ack(last, BasicAckOptions { multiple: true }).await?;
            }
        }
        Ok(())
    };
    tokio::try_join!(echoing, settling).map(|((), ())| ())
}

/// Of a bare answer, or such as ours have.
fn properties(as_ours: bool) -> BasicProperties {
    let bare = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if !as_ours {
        return bare;
    }
    let mut headers = FieldTable::default();
    let trace = AMQPValue::LongString(Trace::start().traceparent().into());
    headers.insert(Trace::HEADER.into(), trace);
    bare.with_message_id(Uuid::now_v7().to_string().into())
        .with_type("StockReserved".into())
        .with_timestamp(1_800_000_000)
        .with_app_id("ms-inventory".into())
        .with_content_type("application/json".into())
        .with_correlation_id("B0000-00000000".into())
        .with_headers(headers)
}
