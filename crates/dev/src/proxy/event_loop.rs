use std::io::{self, Read as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::SockRef;

use super::pipe::{CHUNK_BYTES, Conditions, Pipe};
use super::{Command, Counts, Delay, Direction, Request};

/// How long the server may take to accept. On the loopback interface the kernel does it, even for a frozen server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// The longest wait for the sockets. It bounds how soon the proxy listens again on a port that somebody else had taken.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// The most connections it accepts before it looks at the others again.
const ACCEPTED_AT_ONCE: usize = 64;

pub(super) struct EventLoop {
    address: SocketAddr,
    upstream: SocketAddr,
    /// None while new connections are refused.
    listener: Option<TcpListener>,
    refuses: bool,
    woken: UnixStream,
    requests: Receiver<Request>,
    connections: Vec<Connection>,
    to_server: Conditions,
    to_client: Conditions,
    silences_new: bool,
    counts: Counts,
    random: Random,
}

struct Connection {
    client: TcpStream,
    server: TcpStream,
    to_server: Pipe,
    to_client: Pipe,
}

impl EventLoop {
    pub(super) fn new(
        listener: TcpListener,
        upstream: SocketAddr,
        woken: UnixStream,
        requests: Receiver<Request>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        Ok(Self {
            address: listener.local_addr()?,
            upstream,
            listener: Some(listener),
            refuses: false,
            woken,
            requests,
            connections: Vec::new(),
            to_server: Conditions::default(),
            to_client: Conditions::default(),
            silences_new: false,
            counts: Counts::default(),
            random: Random(0),
        })
    }

    /// Serves until it is told to stop.
    pub(super) fn run(&mut self) {
        let mut scratch = [0; CHUNK_BYTES];
        while self.obey() {
            self.listen();
            let ready = self.wait();
            self.forward(&ready, &mut scratch);
            self.accept();
        }
    }

    /// Obeys all commands; false if one of them is to stop.
    fn obey(&mut self) -> bool {
        // The bytes say nothing but that there are commands.
        let mut bytes = [0; 64];
        while matches!(self.woken.read(&mut bytes), Ok(read) if read > 0) {}
        let mut goes_on = true;
        while let Ok(Request { command, done }) = self.requests.try_recv() {
            match command {
                Command::Delay(direction, delay) => self.conditions(direction).delay = delay,
                Command::Throttle(direction, limit) => self.conditions(direction).bytes_per_second = limit,
                Command::ResetAll => {
                    self.counts.reset += self.connections.len() as u64;
                    self.connections.drain(..).for_each(Connection::reset);
                }
                Command::ResetOne { random } => self.reset_one(random),
                Command::SilenceEstablished(direction) => self.silence(direction),
                Command::SilenceAll => {
                    self.silence(None);
                    self.silences_new = true;
                }
                Command::Resume => {
                    self.silences_new = false;
                    for connection in &mut self.connections {
                        connection.to_server.set_silent(false);
                        connection.to_client.set_silent(false);
                    }
                }
                Command::Work => {
                    (self.to_server, self.to_client) = (Conditions::default(), Conditions::default());
                    (self.silences_new, self.refuses) = (false, false);
                    self.listen();
                }
                Command::Refuse(refuses) => {
                    self.refuses = refuses;
                    self.listen();
                }
                Command::Count => {}
                Command::Stop => goes_on = false,
            }
            self.counts.established = self.connections.len() as u64;
            // The sender may have stopped waiting.
            let _ = done.send(self.counts);
        }
        goes_on
    }

    fn conditions(&mut self, direction: Direction) -> &mut Conditions {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }

    fn reset_one(&mut self, random: u64) {
        if let Some(index) = random.checked_rem(self.connections.len() as u64) {
            self.counts.reset += 1;
            self.connections.swap_remove(usize::try_from(index).unwrap_or_default()).reset();
        }
    }

    /// In both directions, where none is given.
    fn silence(&mut self, only: Option<Direction>) {
        for Connection { to_server, to_client, .. } in &mut self.connections {
            let was_silent = [&to_server, &to_client].iter().any(|pipe| pipe.is_silent());
            for (direction, pipe) in [(Direction::ToServer, to_server), (Direction::ToClient, to_client)] {
                if only.is_none_or(|only| only == direction) {
                    pipe.set_silent(true);
                }
            }
            self.counts.silenced += u64::from(!was_silent);
        }
    }

    /// Only a port without a listener refuses a connection as a stopped server does.
    fn listen(&mut self) {
        if self.refuses {
            self.listener = None;
        } else if self.listener.is_none() {
            let listener = TcpListener::bind(self.address);
            self.listener = listener.and_then(|listener| listener.set_nonblocking(true).map(|()| listener)).ok();
        }
    }

    /// Waits until a socket is ready, bytes are due, or a command comes. Returns which connections have a socket that is
    /// ready.
    fn wait(&self) -> Vec<bool> {
        let mut polled = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        polled.extend(self.listener.iter().map(|listener| PollFd::new(listener.as_fd(), PollFlags::POLLIN)));
        let others = polled.len();
        let mut owners = Vec::new();
        let mut due: Option<Instant> = None;
        for (index, connection) in self.connections.iter().enumerate() {
            let Connection { client, server, to_server, to_client, .. } = connection;
            for (socket, incoming, outgoing) in [(client, to_server, to_client), (server, to_client, to_server)] {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::POLLIN, incoming.wants_to_read());
                flags.set(PollFlags::POLLOUT, outgoing.is_blocked());
                // The kernel reports the end of a connection even where nothing is asked for, at once and for ever.
                if !flags.is_empty() {
                    polled.push(PollFd::new(socket.as_fd(), flags));
                    owners.push(index);
                }
                due = due.into_iter().chain(outgoing.due()).min();
            }
        }
        let wait = due.map_or(MAX_WAIT, |due| due.saturating_duration_since(Instant::now()).min(MAX_WAIT));
        // Rounded up: to wake up early is to find nothing due and to wait for nothing again.
        let millis = wait.as_micros().div_ceil(1_000);
        let mut ready = vec![false; self.connections.len()];
        match poll(&mut polled, PollTimeout::try_from(millis).unwrap_or(PollTimeout::ZERO)) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            // The kernel is out of memory. Nothing else can be wrong with a list of open sockets.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
        for (socket, &owner) in polled[others..].iter().zip(&owners) {
            ready[owner] |= socket.any().unwrap_or(true);
        }
        ready
    }

    /// Moves bytes on all connections that are ready or have something due.
    fn forward(&mut self, ready: &[bool], scratch: &mut [u8; CHUNK_BYTES]) {
        let now = Instant::now();
        let (to_server, to_client) = (self.to_server, self.to_client);
        // Backwards, because `swap_remove` brings the last one to this place.
        for index in (0..self.connections.len()).rev() {
            let connection = &mut self.connections[index];
            let is_ready = ready.get(index).copied().unwrap_or_default() || connection.is_due(now);
            if !is_ready {
                continue;
            }
            let delays = [to_server.delay, to_client.delay].map(|delay| self.random.within(delay));
            let moved = connection.forward(scratch, now, delays, [to_server, to_client]);
            let is_closed = connection.to_server.is_closed() && connection.to_client.is_closed();
            match moved {
                Ok([up, down]) => {
                    self.counts.bytes_to_server += up as u64;
                    self.counts.bytes_to_client += down as u64;
                    if is_closed {
                        drop(self.connections.swap_remove(index));
                    }
                }
                // One side was reset, and so is the other.
                Err(_) => self.connections.swap_remove(index).reset(),
            }
        }
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        for _ in 0..ACCEPTED_AT_ONCE {
            let Ok((client, _)) = listener.accept() else { return };
            self.counts.accepted += 1;
            let connected = TcpStream::connect_timeout(&self.upstream, CONNECT_TIMEOUT);
            let prepared = connected.and_then(|server| {
                for socket in [&client, &server] {
                    socket.set_nonblocking(true)?;
                    socket.set_nodelay(true)?;
                }
                Ok(server)
            });
            let Ok(server) = prepared else {
                self.counts.unreachable += 1;
                reset(client);
                continue;
            };
            let now = Instant::now();
            let [to_server, to_client] = [(); 2].map(|()| Pipe::new(now, self.silences_new));
            self.counts.silenced += u64::from(self.silences_new);
            self.connections.push(Connection { client, server, to_server, to_client });
        }
    }
}

impl Connection {
    fn is_due(&self, now: Instant) -> bool {
        [&self.to_server, &self.to_client].iter().any(|pipe| pipe.due().is_some_and(|due| due <= now))
    }

    /// Returns how many bytes were delivered to the server and to the client.
    fn forward(
        &mut self,
        scratch: &mut [u8; CHUNK_BYTES],
        now: Instant,
        [delay_up, delay_down]: [Duration; 2],
        [up, down]: [Conditions; 2],
    ) -> io::Result<[usize; 2]> {
        let Self { client, server, to_server, to_client, .. } = self;
        to_server.read(client, scratch, now, delay_up)?;
        to_client.read(server, scratch, now, delay_down)?;
        let up = to_server.write(server, now, up.bytes_per_second)?;
        let down = to_client.write(client, now, down.bytes_per_second)?;
        Ok([up, down])
    }

    fn reset(self) {
        reset(self.client);
        reset(self.server);
    }
}

/// Closes a socket with a reset (RST): what it has not sent yet is dropped.
fn reset(socket: TcpStream) {
    // Where the option cannot be set, the connection has ended already.
    let _ = SockRef::from(&socket).set_linger(Some(Duration::ZERO));
    drop(socket);
}

/// A linear congruential generator, which is random enough for jitter and the same in every run.
struct Random(u64);

impl Random {
    fn within(&mut self, Delay { latency, jitter }: Delay) -> Duration {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [share, ..] = self.0.to_be_bytes();
        latency + jitter * u32::from(share) / u32::from(u8::MAX)
    }
}
