//! A broker that is short of memory takes nothing from those who publish. It is waited for, and nothing is begun anew.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use dev::proxy::Proxy;
use dev::rabbitmq::{self, RabbitMq};
use dev::testing::{Folder, Vhost};
use events::queues;
use lapin::options::{BasicPublishOptions, QueueDeleteOptions};
use lapin::{BasicProperties, Connection, ConnectionProperties};
use tokio::sync::Barrier;
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;
use crate::world::{Instance, World, eventually};

/// A broker of its own, because an alarm is everybody's.
pub(crate) struct Broker {
    rabbitmq: RabbitMq,
    _folder: Folder,
}

impl Broker {
    pub(crate) fn start() -> Self {
        let folder = Folder::create("alarm").unwrap();
        let rabbitmq = RabbitMq::start(&folder.path().join("rabbitmq"), rabbitmq::Options::TEST).unwrap();
        Self { rabbitmq, _folder: folder }
    }

    pub(crate) fn url(&self) -> String {
        self.rabbitmq.url()
    }

    fn vhost(&self) -> Vhost {
        Vhost::create_on(&self.rabbitmq.url(), &self.rabbitmq.ui_url()).unwrap()
    }

    /// It tells of its alarm to those who publish.
    fn raise_alarm(&self) {
        self.set_watermark("0.00001");
    }

    fn clear_alarm(&self) {
        self.set_watermark("0.4");
    }

    fn set_watermark(&self, of_memory: &str) {
        self.rabbitmqctl(&format!("set_vm_memory_high_watermark {of_memory}"));
    }

    /// A classic queue that neither takes nor confirms anything, as a queue without quorum does not; or one that does again.
    pub(crate) fn suspend_queue(&self, queue: &str, is_suspended: bool) {
        let what = if is_suspended { "suspend" } else { "resume" };
        let found = format!(r#"{{ok, Q}} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"{queue}">>))"#);
        self.rabbitmqctl(&format!("eval '{found}, sys:{what}(amqqueue:get_pid(Q)).'"));
    }

    fn rabbitmqctl(&self, what: &str) {
        let command = format!("{} {what}", self.rabbitmq.rabbitmqctl());
        let output = Command::new("sh").args(["-c", &command]).output().unwrap();
        assert!(output.status.success(), "{output:?}");
    }
}

/// One alarm for all that is tried under it, because a broker takes seconds to start.
struct Alarm {
    broker: Broker,
    all: Barrier,
}

impl Alarm {
    fn expected_by(trials: usize) -> Self {
        Self { broker: Broker::start(), all: Barrier::new(trials) }
    }

    /// Waits until all are prepared for it, and it has come.
    async fn begins(&self) {
        self.together(Broker::raise_alarm).await;
    }

    /// Waits until nobody needs it any more, and it is over.
    async fn ends(&self) {
        self.together(Broker::clear_alarm).await;
    }

    /// The last that comes does it, and the others wait for it.
    async fn together(&self, action: impl FnOnce(&Broker)) {
        if self.all.wait().await.is_leader() {
            action(&self.broker);
        }
        self.all.wait().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alarm_is_waited_for_however_long_it_lasts() {
    let alarm = Alarm::expected_by(8);
    let worlds = World::several(7, || alarm.broker.vhost()).await;
    let [told, answering, publishing, draining, lost, failing, failing_idle] = &worlds[..] else { unreachable!() };
    // Where there are no orders, the events are the first that the broker does not take, and the consumer of orders has
    // nothing in hand.
    futures::join!(
        health_tells_of_it(&alarm, told),
        no_session_ends(&alarm, answering, 5),
        no_session_ends(&alarm, publishing, 0),
        an_instance_drains_in_time(&alarm, draining),
        a_lost_connection_is_replaced(&alarm, lost),
        a_lost_connection_is_told_as_lost(&alarm),
        a_session_that_fails_is_begun_anew(&alarm, failing, 5),
        a_session_that_fails_is_begun_anew(&alarm, failing_idle, 0),
    );
}

async fn is_blocked(instance: &Instance) -> bool {
    instance.health().await.to_string().contains("blocked by the broker")
}

async fn health_tells_of_it(alarm: &Alarm, (world, vhost): &(World, Vhost)) {
    let client = Client::connect(vhost.amqp_url()).await;
    world.start(vhost, &[]).await.stop().await;
    client.create("A", &[]).await;
    alarm.begins().await;
    let instance = Instance::start_unready(world.database.url(), vhost.amqp_url(), &[]).await;
    eventually("health tells why", async || is_blocked(&instance).await).await;
    assert!(!instance.is_ready().await);
    alarm.ends().await;
    assert_eq!(client.answer().await["order_id"], "A");
    eventually("it is ready again", async || instance.is_ready().await).await;
    instance.stop().await;
}

/// An instance with answers and events on their way when the alarm came, and more of both behind them.
struct Blocked<'w> {
    world: &'w World,
    client: Client,
    proxy: Proxy,
    instance: Instance,
    order_ids: BTreeSet<String>,
}

impl<'w> Blocked<'w> {
    const EVENTS: i64 = 20;

    async fn by(alarm: &Alarm, (world, vhost): &'w (World, Vhost), orders: usize) -> Self {
        let product = world.product(100).await;
        let client = Client::connect(vhost.amqp_url()).await;
        let proxy = Proxy::start_for(vhost.amqp_url()).unwrap();
        let broker_url = proxy.in_front_of(vhost.amqp_url());
        let instance = Instance::start(world.database.url(), &broker_url, &["--batch-max-messages", "1"]).await;
        client.create("FIRST", &[(product, 1)]).await;
        assert_eq!(client.answer().await["order_id"], "FIRST");

        let mut lock = world.pool.begin().await.unwrap();
        sqlx::query("select from stock for update").execute(&mut *lock).await.unwrap();
        let order_ids: BTreeSet<String> = (0..orders).map(|n| format!("ORD-{n}")).collect();
        for id in &order_ids {
            client.create(id, &[(product, 1)]).await;
        }
        alarm.begins().await;
        lock.commit().await.unwrap();
        let insert = "insert into outbox (message_id, exchange, routing_key, event, key, body, mandatory, traceparent)
                      select gen_random_uuid(), 'inventory', 'test', 'Test', n::text, '{}', false, ''
                      from generate_series(1, $1) as n";
        sqlx::query(insert).bind(Self::EVENTS).execute(&world.pool).await.unwrap();
        eventually("it is blocked", async || is_blocked(&instance).await).await;
        Self { world, client, proxy, instance, order_ids }
    }

    /// The alarm is not over yet when there is a new connection.
    async fn begins_anew(self, alarm: &Alarm) {
        eventually("there is a new connection", async || self.proxy.counts().accepted > 1).await;
        alarm.ends().await;
        self.catches_up().await;
    }

    async fn catches_up(self) {
        all_are_answered(&self.client, self.order_ids).await;
        eventually("the events are published", async || events(self.world).await == 0).await;
        self.instance.stop().await;
    }
}

/// How many events are in the outbox.
async fn events(world: &World) -> i64 {
    sqlx::query_scalar("select count(*) from outbox").fetch_one(&world.pool).await.unwrap()
}

/// Longer than anything else that is asked of a broker may take.
const LONG: Duration = Duration::from_secs(40);

async fn no_session_ends(alarm: &Alarm, servers: &(World, Vhost), orders: usize) {
    let blocked = Blocked::by(alarm, servers, orders).await;
    let begun = Instant::now();
    while begun.elapsed() < LONG {
        let counts = blocked.proxy.counts();
        assert_eq!((counts.accepted, counts.established), (1, 1), "after {:?}", begun.elapsed());
        sleep(Duration::from_millis(100)).await;
    }
    assert!(is_blocked(&blocked.instance).await);
    assert!(events(blocked.world).await > 0);

    alarm.ends().await;
    all_are_answered(&blocked.client, blocked.order_ids.clone()).await;
    eventually("the events are published", async || events(blocked.world).await == 0).await;
    eventually("it is ready again", async || blocked.instance.is_ready().await).await;
    assert_eq!(blocked.proxy.counts().accepted, 1);
    blocked.instance.stop().await;
}

/// What cannot be published stays where it is: orders in their queue, events in the outbox.
async fn an_instance_drains_in_time(alarm: &Alarm, servers: &(World, Vhost)) {
    let Blocked { world, client, proxy: _proxy, instance, order_ids } = Blocked::by(alarm, servers, 5).await;
    timeout(Duration::from_secs(10), instance.stop()).await.expect("it drains");
    assert!(events(world).await > 0);
    alarm.ends().await;
    let instance = world.start(&servers.1, &[]).await;
    all_are_answered(&client, order_ids).await;
    eventually("the events are published", async || events(world).await == 0).await;
    instance.stop().await;
}

async fn a_lost_connection_is_replaced(alarm: &Alarm, servers: &(World, Vhost)) {
    let blocked = Blocked::by(alarm, servers, 5).await;
    blocked.proxy.reset_all();
    blocked.begins_anew(alarm).await;
}

async fn a_lost_connection_is_told_as_lost(alarm: &Alarm) {
    let amqp_url = alarm.broker.url();
    let proxy = Proxy::start_for(&amqp_url).unwrap();
    let broker = messaging::session::Broker::new(&proxy.in_front_of(&amqp_url), "test").unwrap();
    let connection = broker.connect().await.unwrap();
    broker.ready(&connection);
    let channel = connection.create_channel().await.unwrap();
    alarm.begins().await;
    let (options, properties) = (BasicPublishOptions::default(), BasicProperties::default());
    channel.basic_publish("".into(), "nobody".into(), options, b"", properties).await.unwrap();
    let is_told = async |what| eventually(what, async || broker.check().is_err_and(|error| error.contains(what))).await;
    is_told("blocked").await;
    proxy.reset_all();
    is_told("lost").await;
    alarm.ends().await;
}

/// What waits for the broker is given up when another part of its session has failed.
async fn a_session_that_fails_is_begun_anew(alarm: &Alarm, servers: &(World, Vhost), orders: usize) {
    let blocked = Blocked::by(alarm, servers, orders).await;
    let connection = Connection::connect(servers.1.amqp_url(), ConnectionProperties::default()).await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    channel.queue_delete(queues::ORDER_SETTLED.into(), QueueDeleteOptions::default()).await.unwrap();
    blocked.begins_anew(alarm).await;
}

/// In any order: two batches in flight have a channel each.
async fn all_are_answered(client: &Client, mut unanswered: BTreeSet<String>) {
    while !unanswered.is_empty() {
        unanswered.remove(client.answer().await["order_id"].as_str().unwrap());
    }
}
