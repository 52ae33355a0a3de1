//! A TCP proxy between a service and one of its servers, which breaks connections in the ways networks do.
//!
//! It delays, throttles, resets, goes silent and refuses, when the test says so. A silent connection stays open and nothing
//! comes through any more, in either direction, as after a failover of a virtual address or the loss of an entry in a NAT
//! table; it never recovers.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use socket2::SockRef;

/// How soon a connection notices that it is to be reset.
const POLL: Duration = Duration::from_millis(20);

/// A running proxy. Dropping it resets all connections and stops listening.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// What happens to bytes on their way in one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

#[derive(Debug, Default)]
struct Shared {
    rules: Mutex<Rules>,
    links: Mutex<Vec<Arc<Link>>>,
    resets: AtomicU64,
    silenced: AtomicU64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Rules {
    delays: [Duration; 2],
    bytes_per_second: [Option<u32>; 2],
    silent: bool,
    refuse: bool,
    stopped: bool,
}

/// One connection of a client, and the one to the server that belongs to it.
#[derive(Debug)]
struct Link {
    client: TcpStream,
    server: Option<TcpStream>,
    silent: [AtomicBool; 2],
    ended: AtomicBool,
}

impl Proxy {
    /// Listens on a free port of the loopback address, for the server at `upstream` (`host:port`).
    ///
    /// # Errors
    /// When it cannot listen.
    pub fn start(upstream: &str) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("the proxy cannot listen")?;
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let (upstream, of_listener) = (upstream.to_owned(), Arc::clone(&shared));
        thread::spawn(move || listen(&listener, &upstream, &of_listener));
        Ok(Self { address, shared })
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `url`, with this proxy in the place of its host and port.
    pub fn in_front_of(&self, url: &str) -> String {
        let (head, rest) = url.rsplit_once('@').unwrap_or(("", url));
        let path = rest.find('/').map_or("", |at| &rest[at..]);
        format!("{head}@{}{path}", self.address)
    }

    /// Delays every piece of data by so much, until told otherwise.
    pub fn delay(&self, direction: Direction, by: Duration) {
        self.shared.rules().delays[direction as usize] = by;
    }

    /// Lets so many bytes through in a second; `None`: as many as come.
    pub fn throttle(&self, direction: Direction, bytes_per_second: Option<u32>) {
        self.shared.rules().bytes_per_second[direction as usize] = bytes_per_second;
    }

    /// Resets all connections there are.
    pub fn reset_all(&self) {
        let links = std::mem::take(&mut *self.shared.links());
        self.shared.resets.fetch_add(links.len() as u64, Ordering::Relaxed);
        links.iter().for_each(|link| link.reset());
    }

    /// Resets one of the connections there are.
    pub fn reset_one(&self, choice: usize) {
        let mut links = self.shared.links();
        links.retain(|link| !link.has_ended());
        if !links.is_empty() {
            let at = choice % links.len();
            links.swap_remove(at).reset();
            self.shared.resets.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes the connections there are silent for good, in one direction. New ones work.
    pub fn silence_established_in(&self, direction: Direction) {
        let links = self.shared.links();
        self.shared.silenced.fetch_add(links.len() as u64, Ordering::Relaxed);
        links.iter().for_each(|link| link.silent[direction as usize].store(true, Ordering::Relaxed));
    }

    /// Makes the connections there are silent for good. New ones work.
    pub fn silence_established(&self) {
        self.silence_established_in(Direction::ToServer);
        self.silence_established_in(Direction::ToClient);
    }

    /// Makes all connections silent, and those that are opened meanwhile, until [`work`](Self::work).
    pub fn silence_all(&self) {
        self.shared.rules().silent = true;
        self.silence_established();
    }

    /// Refuses new connections until [`work`](Self::work): they are reset at once.
    pub fn refuse(&self) {
        self.shared.rules().refuse = true;
    }

    /// Lets new connections through, without delay and throttle.
    pub fn work(&self) {
        *self.shared.rules() = Rules::default();
    }

    /// How many connections were reset so far.
    pub fn resets(&self) -> u64 {
        self.shared.resets.load(Ordering::Relaxed)
    }

    /// How often a direction of a connection was made silent so far.
    pub fn silenced(&self) -> u64 {
        self.shared.silenced.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.rules().stopped = true;
        self.reset_all();
        // It is waiting for a client.
        TcpStream::connect(self.address).ok();
    }
}

impl Shared {
    fn rules(&self) -> MutexGuard<'_, Rules> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn links(&self) -> MutexGuard<'_, Vec<Arc<Link>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// Ends it so that both ends get a reset: a socket that is closed without lingering sends one.
    fn reset(&self) {
        for socket in [Some(&self.client), self.server.as_ref()].into_iter().flatten() {
            SockRef::from(socket).set_linger(Some(Duration::ZERO)).ok();
        }
        self.ended.store(true, Ordering::Relaxed);
    }
}

fn listen(listener: &TcpListener, upstream: &str, shared: &Arc<Shared>) {
    for client in listener.incoming() {
        let rules = *shared.rules();
        if rules.stopped {
            return;
        }
        let Ok(client) = client else { continue };
        if rules.refuse {
            SockRef::from(&client).set_linger(Some(Duration::ZERO)).ok();
            continue;
        }
        let server = if rules.silent { None } else { TcpStream::connect(upstream).ok() };
        if server.is_none() && !rules.silent {
            continue;
        }
        let silent = || AtomicBool::new(rules.silent);
        let link = Arc::new(Link { client, server, silent: [silent(), silent()], ended: AtomicBool::new(false) });
        for socket in [Some(&link.client), link.server.as_ref()].into_iter().flatten() {
            socket.set_nodelay(true).ok();
            socket.set_read_timeout(Some(POLL)).ok();
        }
        {
            let mut links = shared.links();
            links.retain(|link| !link.has_ended());
            links.push(Arc::clone(&link));
        }
        for direction in [Direction::ToServer, Direction::ToClient] {
            let (link, shared) = (Arc::clone(&link), Arc::clone(shared));
            thread::spawn(move || {
                pump(&link, direction, &shared).ok();
                // One direction that ends ends the other: both protocols end a connection as a whole.
                link.ended.store(true, Ordering::Relaxed);
                shared.links().retain(|link| !link.has_ended());
            });
        }
    }
}

/// Passes data on in one direction. It reads the next piece when the last is written, so a slow reader slows its sender.
fn pump(link: &Link, direction: Direction, shared: &Shared) -> io::Result<()> {
    let Some(server) = &link.server else {
        return swallow(link);
    };
    let (mut from, mut to) = match direction {
        Direction::ToServer => (&link.client, server),
        Direction::ToClient => (server, &link.client),
    };
    let mut buffer = vec![0; 64 * 1024];
    while !link.has_ended() {
        let length = match from.read(&mut buffer) {
            Ok(0) => return to.shutdown(std::net::Shutdown::Write),
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(error) => return Err(error),
        };
        let rules = *shared.rules();
        thread::sleep(rules.delays[direction as usize]);
        if let Some(bytes_per_second) = rules.bytes_per_second[direction as usize] {
            thread::sleep(Duration::from_secs_f64(length as f64 / f64::from(bytes_per_second.max(1))));
        }
        if !link.silent[direction as usize].load(Ordering::Relaxed) && !link.has_ended() {
            to.write_all(&buffer[..length])?;
        }
    }
    Ok(())
}

/// Holds a connection open without answering.
fn swallow(link: &Link) -> io::Result<()> {
    let mut buffer = [0; 1024];
    while !link.has_ended() {
        match (&link.client).read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(_) => (),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    /// A server that answers what it hears.
    fn echo() -> String {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || io::copy(&mut &client, &mut &client));
            }
        });
        address
    }

    fn client(proxy: &Proxy) -> TcpStream {
        let client = TcpStream::connect(proxy.address()).unwrap();
        client.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        client
    }

    fn ask(client: &mut TcpStream) -> io::Result<[u8; 2]> {
        client.write_all(b"hi")?;
        let mut answer = [0; 2];
        client.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn it_passes_on_and_delays() {
        let proxy = Proxy::start(&echo()).unwrap();
        let mut client = client(&proxy);
        assert_eq!(&ask(&mut client).unwrap(), b"hi");
        proxy.delay(Direction::ToServer, Duration::from_millis(50));
        proxy.delay(Direction::ToClient, Duration::from_millis(50));
        let begun = Instant::now();
        ask(&mut client).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(100));
    }

    #[test]
    fn it_throttles() {
        let proxy = Proxy::start(&echo()).unwrap();
        let mut client = client(&proxy);
        proxy.throttle(Direction::ToServer, Some(20));
        let begun = Instant::now();
        ask(&mut client).unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(100));
    }

    #[test]
    fn a_reset_is_an_error_for_the_client_and_new_connections_work() {
        let proxy = Proxy::start(&echo()).unwrap();
        let mut first = client(&proxy);
        ask(&mut first).unwrap();
        proxy.reset_all();
        first.set_read_timeout(None).unwrap();
        assert_eq!(first.read(&mut [0; 1]).unwrap_err().kind(), ErrorKind::ConnectionReset);
        ask(&mut client(&proxy)).unwrap();
        assert_eq!(proxy.resets(), 1);
    }

    #[test]
    fn a_silent_connection_stays_open_and_a_new_one_works() {
        let proxy = Proxy::start(&echo()).unwrap();
        let mut first = client(&proxy);
        ask(&mut first).unwrap();
        proxy.silence_established();
        assert!(matches!(ask(&mut first).unwrap_err().kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        ask(&mut client(&proxy)).unwrap();
    }

    #[test]
    fn while_all_is_silent_new_connections_are_taken_and_get_no_answer() {
        let proxy = Proxy::start(&echo()).unwrap();
        proxy.silence_all();
        let mut silent = client(&proxy);
        assert!(matches!(ask(&mut silent).unwrap_err().kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        proxy.work();
        ask(&mut client(&proxy)).unwrap();
        assert!(ask(&mut silent).is_err(), "it does not recover");
    }

    #[test]
    fn it_refuses() {
        let proxy = Proxy::start(&echo()).unwrap();
        proxy.refuse();
        assert!(ask(&mut client(&proxy)).is_err());
    }

    #[test]
    fn it_stands_in_for_the_host_of_a_url() {
        let proxy = Proxy::start("127.0.0.1:1").unwrap();
        let at = proxy.address();
        assert_eq!(proxy.in_front_of("amqp://u:p@127.0.0.1:5672/vhost"), format!("amqp://u:p@{at}/vhost"));
        assert_eq!(proxy.in_front_of("postgres://u:p@127.0.0.1:5432/db"), format!("postgres://u:p@{at}/db"));
    }
}
