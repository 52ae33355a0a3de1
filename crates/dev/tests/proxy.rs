//! What [`dev::proxy`] does to connections, seen from both ends.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use dev::proxy::{Delay, Direction, Proxy};

/// How long anything may take before a test gives up.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long silence is listened to. A byte that comes later than this is missed, which never fails a test.
const LISTENED: Duration = Duration::from_millis(200);

#[test]
fn bytes_and_ends_pass_in_both_directions() {
    let server = Server::start();
    let (mut client, mut accepted) = server.connection();
    let sent: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_be_bytes()[3]).collect();
    let received = thread::scope(|scope| {
        scope.spawn(|| {
            client.write_all(&sent).unwrap();
            client.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        accepted.read_to_end(&mut received).unwrap();
        received
    });
    assert!(received == sent);
    accepted.write_all(b"answer").unwrap();
    drop(accepted);
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"answer");
    eventually("the connection is forgotten", || server.proxy.counts().established == 0);
    let counts = server.proxy.counts();
    assert_eq!((counts.accepted, counts.bytes_to_server, counts.bytes_to_client), (1, 3_000_000, 6));
    assert_eq!((counts.reset, counts.silenced, counts.unreachable), (0, 0, 0));
}

#[test]
fn each_direction_has_its_own_delay() {
    let server = Server::start();
    let (mut client, mut accepted) = server.connection();
    let latency = Duration::from_millis(150);
    server.proxy.delay(Direction::ToClient, Delay { latency, jitter: Duration::from_millis(50) });
    exchange(&mut client, &mut accepted);
    let begun = Instant::now();
    accepted.write_all(b"b").unwrap();
    assert_eq!(read_byte(&mut client), b'b');
    assert!(begun.elapsed() >= latency, "{:?}", begun.elapsed());
}

#[test]
fn chunks_keep_their_order_whatever_their_jitter() {
    let server = Server::start();
    let (mut client, mut accepted) = server.connection();
    server.proxy.delay(Direction::ToServer, Delay { latency: Duration::ZERO, jitter: Duration::from_millis(20) });
    for number in 0..200_u8 {
        client.write_all(&[number]).unwrap();
        thread::sleep(Duration::from_micros(200));
    }
    let mut received = [0; 200];
    accepted.read_exact(&mut received).unwrap();
    assert!(received.is_sorted());
}

#[test]
fn a_throttle_is_a_limit_of_each_second() {
    let server = Server::start();
    let (mut client, mut accepted) = server.connection();
    server.proxy.throttle(Direction::ToServer, Some(20_000));
    let begun = Instant::now();
    client.write_all(&[0; 10_000]).unwrap();
    accepted.read_exact(&mut [0; 10_000]).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());

    server.proxy.throttle(Direction::ToServer, None);
    client.write_all(&[0; 1_000_000]).unwrap();
    accepted.read_exact(&mut [0; 1_000_000]).unwrap();
}

#[test]
fn a_receiver_that_reads_nothing_stops_the_sender() {
    let server = Server::start();
    let (mut client, mut accepted) = server.connection();
    client.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let chunk = vec![7; 1 << 20];
    let mut sent = 0;
    // Far more than the buffers of the kernel and the proxy take.
    while sent < 1 << 30 {
        match client.write(&chunk) {
            Ok(written) => sent += written,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(sent < 1 << 30, "nothing stopped the sender");
    drop(client);
    let mut received = 0;
    let mut buffer = vec![0; 1 << 16];
    while let Ok(read @ 1..) = accepted.read(&mut buffer) {
        received += read;
    }
    assert_eq!(received, sent);
}

#[test]
fn a_reset_reaches_both_ends_of_all_connections_or_of_one() {
    let server = Server::start();
    let mut connections: Vec<_> = (0..3).map(|_| server.connection()).collect();
    assert_eq!(server.proxy.reset_one(7), 1);
    let is_reset = |ends: &mut (TcpStream, TcpStream)| {
        let [client, accepted] = [&mut ends.0, &mut ends.1].map(outcome);
        assert_eq!(client, accepted);
        client == Some(ErrorKind::ConnectionReset)
    };
    connections.retain_mut(|ends| !is_reset(ends));
    assert_eq!(connections.len(), 2);
    assert_eq!(server.proxy.reset_all(), 2);
    assert!(connections.iter_mut().all(is_reset));
    assert_eq!(server.proxy.reset_one(7), 0);
    assert_eq!(server.proxy.counts().reset, 3);
    let (mut client, mut accepted) = server.connection();
    exchange(&mut client, &mut accepted);
}

#[test]
fn a_reset_of_one_end_reaches_the_other() {
    let server = Server::start();
    let (client, mut accepted) = server.connection();
    accepted.write_all(b"unread").unwrap();
    // A socket that is closed with something unread is reset.
    eventually("it has arrived", || client.peek(&mut [0]).is_ok());
    drop(client);
    eventually("it is reset", || outcome(&mut accepted) == Some(ErrorKind::ConnectionReset));
}

#[test]
fn established_connections_are_silent_while_new_ones_work() {
    let server = Server::start();
    let (mut client, mut accepted) = server.connection();
    assert_eq!(server.proxy.silence_established(), 1);
    client.write_all(b"c").unwrap();
    accepted.write_all(b"s").unwrap();
    let (mut new_client, mut new_accepted) = server.connection();
    exchange(&mut new_client, &mut new_accepted);
    for end in [&mut client, &mut accepted] {
        assert_eq!(outcome(end), None);
    }
    assert_eq!(server.proxy.silence_established(), 1, "only the new one");
    server.proxy.resume();
    assert_eq!((read_byte(&mut accepted), read_byte(&mut client)), (b'c', b's'));
}

#[test]
fn one_direction_is_silent_and_the_other_is_not() {
    let server = Server::start();
    let (mut client, mut accepted) = server.connection();
    assert_eq!(server.proxy.silence_established_in(Direction::ToClient), 1);
    client.write_all(b"c").unwrap();
    accepted.write_all(b"s").unwrap();
    assert_eq!(read_byte(&mut accepted), b'c');
    assert_eq!(outcome(&mut client), None);
}

#[test]
fn new_connections_work_again_and_silent_ones_stay_silent() {
    let server = Server::start();
    let (_client, mut accepted) = server.connection();
    server.proxy.silence_all();
    let (mut silent, mut silent_accepted) = server.connection();
    server.proxy.delay(Direction::ToServer, DEADLINE);
    server.proxy.refuse(true);
    server.proxy.work();
    let (mut client, mut new_accepted) = server.connection();
    exchange(&mut client, &mut new_accepted);
    silent.write_all(b"c").unwrap();
    assert_eq!([outcome(&mut accepted), outcome(&mut silent_accepted)], [None, None]);
}

#[test]
fn it_stands_in_for_the_host_of_a_url() {
    let server = Server::start();
    let at = server.proxy.address();
    let amqp = server.proxy.in_front_of("amqp://u:p@127.0.0.1:5672/vhost");
    assert_eq!(amqp, format!("amqp://u:p@{at}/vhost"));
    assert_eq!(server.proxy.in_front_of("postgres://u:p@127.0.0.1:5432/db"), format!("postgres://u:p@{at}/db"));
}

#[test]
fn the_end_of_a_silent_connection_does_not_get_through() {
    let server = Server::start();
    let (client, mut accepted) = server.connection();
    server.proxy.silence_all();
    drop(client);
    assert_eq!(outcome(&mut accepted), None);
    let (mut new_client, mut new_accepted) = server.connection();
    new_client.write_all(b"c").unwrap();
    assert_eq!(outcome(&mut new_accepted), None);
    assert_eq!(server.proxy.counts().silenced, 2);
    server.proxy.resume();
    assert_eq!(read_byte(&mut new_accepted), b'c');
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
}

#[test]
fn refused_are_new_connections_only() {
    let server = Server::start();
    let (mut client, mut accepted) = server.connection();
    server.proxy.refuse(true);
    let refused = TcpStream::connect(server.proxy.address()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    exchange(&mut client, &mut accepted);
    server.proxy.refuse(false);
    let (mut client, mut accepted) = server.connection();
    exchange(&mut client, &mut accepted);
}

#[test]
fn a_server_that_is_gone_resets_its_clients() {
    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().to_string();
    let proxy = Proxy::start(&gone).unwrap();
    let mut client = TcpStream::connect(proxy.address()).unwrap();
    eventually("it is reset", || outcome(&mut client) == Some(ErrorKind::ConnectionReset));
    assert_eq!(proxy.counts().unreachable, 1);
}

#[test]
fn a_dropped_proxy_closes_its_connections() {
    let server = Server::start();
    let (mut client, _accepted) = server.connection();
    let address = server.proxy.address();
    drop(server);
    assert!(matches!(client.read(&mut [0]), Ok(0) | Err(_)));
    assert!(TcpStream::connect(address).is_err());
}

/// A server behind a proxy.
struct Server {
    listener: TcpListener,
    proxy: Proxy,
}

impl Server {
    fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let proxy = Proxy::start(&listener.local_addr().unwrap().to_string()).unwrap();
        Self { listener, proxy }
    }

    /// Both ends of a new connection.
    fn connection(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect(self.proxy.address()).unwrap();
        let (accepted, _) = self.listener.accept().unwrap();
        for end in [&client, &accepted] {
            end.set_read_timeout(Some(DEADLINE)).unwrap();
        }
        (client, accepted)
    }
}

fn exchange(client: &mut TcpStream, accepted: &mut TcpStream) {
    client.write_all(b"q").unwrap();
    assert_eq!(read_byte(accepted), b'q');
    accepted.write_all(b"a").unwrap();
    assert_eq!(read_byte(client), b'a');
}

fn read_byte(end: &mut TcpStream) -> u8 {
    let mut byte = [0];
    end.read_exact(&mut byte).unwrap();
    byte[0]
}

/// How a connection broke; `None` where it stays silent. Anything else fails the test.
fn outcome(end: &mut TcpStream) -> Option<ErrorKind> {
    end.set_read_timeout(Some(LISTENED)).unwrap();
    let read = end.read(&mut [0]);
    end.set_read_timeout(Some(DEADLINE)).unwrap();
    match read {
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
        Err(error) => Some(error.kind()),
        Ok(read) => panic!("{read} bytes came through"),
    }
}

fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < DEADLINE, "still not so: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}
