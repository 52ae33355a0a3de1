use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use super::Delay;

/// The most bytes of one direction of a connection that are on their way.
const BUFFER_BYTES: usize = 256 * 1024;

/// The most bytes that are read at once.
pub(super) const CHUNK_BYTES: usize = 16 * 1024;

/// A throttled pipe delivers so many times a second.
const THROTTLED_WRITES_PER_SECOND: u64 = 50;

/// How bytes travel in one direction of all connections.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Conditions {
    pub(super) delay: Delay,
    pub(super) bytes_per_second: Option<u64>,
}

/// One direction of a connection: what was read from one socket and is not written to the other yet.
#[derive(Debug)]
pub(super) struct Pipe {
    chunks: VecDeque<Chunk>,
    buffered_bytes: usize,
    /// When the throttle lets the next bytes pass.
    throttled_until: Instant,
    is_blocked: bool,
    is_silent: bool,
    end: End,
}

#[derive(Debug)]
struct Chunk {
    due: Instant,
    bytes: Vec<u8>,
    written: usize,
}

/// How far the end of the stream has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    NotSeen,
    Read,
    Delivered,
}

impl Pipe {
    pub(super) fn new(now: Instant, is_silent: bool) -> Self {
        let chunks = VecDeque::new();
        Self { chunks, buffered_bytes: 0, throttled_until: now, is_blocked: false, is_silent, end: End::NotSeen }
    }

    /// Whether nothing gets through.
    pub(super) fn is_silent(&self) -> bool {
        self.is_silent
    }

    pub(super) fn set_silent(&mut self, is_silent: bool) {
        self.is_silent = is_silent;
    }

    /// Whether there is room for more, and more to come.
    pub(super) fn wants_to_read(&self) -> bool {
        !self.is_silent && self.end == End::NotSeen && self.buffered_bytes < BUFFER_BYTES
    }

    /// Whether it waits until the receiver takes more.
    pub(super) fn is_blocked(&self) -> bool {
        !self.is_silent && self.is_blocked
    }

    /// Whether the end of the stream was delivered.
    pub(super) fn is_closed(&self) -> bool {
        self.end == End::Delivered
    }

    /// When it has something to deliver; `None` where it has nothing, or waits for the receiver.
    pub(super) fn due(&self) -> Option<Instant> {
        let chunk = self.chunks.front().filter(|_| !self.is_blocked && !self.is_silent)?;
        Some(chunk.due.max(self.throttled_until))
    }

    /// Takes what the sender has sent, until the buffer is full.
    ///
    /// # Errors
    /// When the connection of the sender broke.
    pub(super) fn read(
        &mut self,
        mut from: &TcpStream,
        scratch: &mut [u8; CHUNK_BYTES],
        now: Instant,
        delay: Duration,
    ) -> io::Result<()> {
        while self.wants_to_read() {
            let read = match from.read(scratch) {
                Ok(0) => {
                    self.end = End::Read;
                    break;
                }
                Ok(read) => read,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            // No chunk overtakes the one before, whatever their jitter.
            let earliest = self.chunks.back().map_or(now, |last| last.due);
            let due = (now + delay).max(earliest);
            self.chunks.push_back(Chunk { due, bytes: scratch[..read].to_vec(), written: 0 });
            self.buffered_bytes += read;
        }
        Ok(())
    }

    /// Delivers what is due, and returns how many bytes.
    ///
    /// # Errors
    /// When the connection of the receiver broke.
    pub(super) fn write(
        &mut self,
        mut to: &TcpStream,
        now: Instant,
        bytes_per_second: Option<u64>,
    ) -> io::Result<usize> {
        let mut delivered = 0;
        if self.is_silent {
            return Ok(delivered);
        }
        self.is_blocked = false;
        while let Some(chunk) = self.chunks.front_mut() {
            if chunk.due > now || self.throttled_until > now {
                break;
            }
            let rest = &chunk.bytes[chunk.written..];
            let most = bytes_per_second.map_or(rest.len(), per_write).min(rest.len());
            let written = match to.write(&rest[..most]) {
                Ok(written) => written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.is_blocked = true;
                    break;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            if let Some(bytes_per_second) = bytes_per_second {
                let nanos = written as u64 * 1_000_000_000 / bytes_per_second.max(1);
                self.throttled_until = now + Duration::from_nanos(nanos);
            }
            chunk.written += written;
            self.buffered_bytes -= written;
            delivered += written;
            if chunk.written == chunk.bytes.len() {
                self.chunks.pop_front();
            }
        }
        if self.end == End::Read && self.chunks.is_empty() {
            self.end = End::Delivered;
            // A receiver that has closed its side already needs no end.
            let _ = to.shutdown(Shutdown::Write);
        }
        Ok(delivered)
    }
}

fn per_write(bytes_per_second: u64) -> usize {
    usize::try_from(bytes_per_second / THROTTLED_WRITES_PER_SECOND).unwrap_or(usize::MAX).max(1)
}
