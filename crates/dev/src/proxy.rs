//! A TCP proxy on the loopback interface, to put between a service and its servers: a test tells it to delay, throttle,
//! reset and silence connections, or to refuse new ones.
//!
//! One thread serves all connections of a proxy. It polls the sockets and never blocks on one of them. [`Pipe`] is one
//! direction of a connection; its buffer is bounded, and a full buffer stops reading, so that the sender notices the
//! back-pressure of the receiver.

mod event_loop;
mod pipe;

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};

use self::event_loop::EventLoop;
use crate::ports;

/// Which way bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// How long each chunk of bytes is held back. Chunks keep their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// The shortest delay.
    pub latency: Duration,
    /// The most that is added to it, by chance.
    pub jitter: Duration,
}

impl From<Duration> for Delay {
    /// Without jitter.
    fn from(latency: Duration) -> Self {
        Self { latency, jitter: Duration::ZERO }
    }
}

/// What a proxy has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Connections it accepted.
    pub accepted: u64,
    /// Of those, connections that are open now.
    pub established: u64,
    /// Connections it reset on command.
    pub reset: u64,
    /// Connections of which it silenced at least one direction, on command.
    pub silenced: u64,
    /// Connections it reset because the server refused its own.
    pub unreachable: u64,
    /// Bytes it delivered to the server.
    pub bytes_to_server: u64,
    /// Bytes it delivered to the client.
    pub bytes_to_client: u64,
}

/// A running proxy. Dropping it closes all of its connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    commands: Sender<Request>,
    waker: UnixStream,
    thread: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, Debug)]
enum Command {
    Delay(Direction, Delay),
    Throttle(Direction, Option<u64>),
    ResetAll,
    ResetOne { random: u64 },
    SilenceEstablished(Option<Direction>),
    SilenceAll,
    Resume,
    Work,
    Refuse(bool),
    Count,
    Stop,
}

/// A command, and where the event loop sends its counts once it has obeyed.
struct Request {
    command: Command,
    done: Sender<Counts>,
}

/// A command that the event loop has not obeyed by then finds no event loop any more.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);

impl Proxy {
    /// Starts a proxy that forwards every connection to `upstream` (`host:port`).
    ///
    /// # Errors
    /// When that is no address, there is no free port, or the operating system gives no more sockets or threads.
    pub fn start(upstream: &str) -> Result<Self> {
        let mut addresses = upstream.to_socket_addrs().with_context(|| format!("{upstream} is no address"))?;
        let upstream = addresses.next().with_context(|| format!("{upstream} has no address"))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::any()?));
        let listener = TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))?;
        let (waker, woken) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        let (commands, received) = mpsc::channel();
        let mut event_loop = EventLoop::new(listener, upstream, woken, received)?;
        let name = format!("proxy of {upstream}");
        let thread = thread::Builder::new().name(name).spawn(move || event_loop.run())?;
        Ok(Self { address, commands, waker, thread: Some(thread) })
    }

    /// Starts a proxy of the server that a URL with a login names.
    ///
    /// # Errors
    /// When the URL has no login or no host, and those of [`Self::start`].
    pub fn start_for(url: &str) -> Result<Self> {
        let (_, server) = url.rsplit_once('@').context("a URL without a login")?;
        Self::start(server.split('/').next().unwrap_or_default())
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

    /// Delays what travels in this direction from now on.
    pub fn delay(&self, direction: Direction, delay: impl Into<Delay>) {
        self.command(Command::Delay(direction, delay.into()));
    }

    /// Delivers at most so many bytes a second in this direction, for each connection; `None` lifts the limit.
    pub fn throttle(&self, direction: Direction, bytes_per_second: Option<u64>) {
        self.command(Command::Throttle(direction, bytes_per_second));
    }

    /// Resets every established connection at once: client and server see a TCP reset (RST), and what was on its way is
    /// lost. Returns how many there were.
    pub fn reset_all(&self) -> u64 {
        self.counted(Command::ResetAll, |counts| counts.reset)
    }

    /// Resets one established connection, which `random` chooses. Returns how many it has reset: none where there was
    /// no connection.
    pub fn reset_one(&self, random: u64) -> u64 {
        self.counted(Command::ResetOne { random }, |counts| counts.reset)
    }

    /// Silences the connections that are established now: they stay open, and nothing gets through any more, not even
    /// their end, as if a firewall had forgotten them. New connections work. Returns how many were silenced.
    pub fn silence_established(&self) -> u64 {
        self.counted(Command::SilenceEstablished(None), |counts| counts.silenced)
    }

    /// [`Self::silence_established`] in one direction.
    pub fn silence_established_in(&self, direction: Direction) -> u64 {
        self.counted(Command::SilenceEstablished(Some(direction)), |counts| counts.silenced)
    }

    /// [`Self::silence_established`], and until [`Self::work`] or [`Self::resume`] new connections are accepted and silent,
    /// too.
    pub fn silence_all(&self) -> u64 {
        self.counted(Command::SilenceAll, |counts| counts.silenced)
    }

    /// Ends every silence. What the connections have sent meanwhile is delivered.
    pub fn resume(&self) {
        self.command(Command::Resume);
    }

    /// Accepts and forwards new connections, and delays and throttles none any more. Silent connections stay silent.
    pub fn work(&self) {
        self.command(Command::Work);
    }

    /// Refuses new connections, or accepts them again. Established connections stay.
    pub fn refuse(&self, refuse: bool) {
        self.command(Command::Refuse(refuse));
    }

    /// What it has done so far.
    pub fn counts(&self) -> Counts {
        self.command(Command::Count)
    }

    /// How many connections it has reset so far.
    pub fn resets(&self) -> u64 {
        self.counts().reset
    }

    /// By how much a command raised one of the counts.
    fn counted(&self, command: Command, count: impl Fn(&Counts) -> u64) -> u64 {
        let before = count(&self.counts());
        count(&self.command(command)).saturating_sub(before)
    }

    /// Returns once the event loop has obeyed.
    fn command(&self, command: Command) -> Counts {
        let (done, obeyed) = mpsc::channel();
        if self.commands.send(Request { command, done }).is_err() {
            return Counts::default();
        }
        // A full buffer of the waker means that the event loop is about to wake up anyway.
        let _ = (&self.waker).write(&[0]);
        obeyed.recv_timeout(COMMAND_TIMEOUT).unwrap_or_default()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.command(Command::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
