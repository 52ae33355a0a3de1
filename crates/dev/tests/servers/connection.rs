//! Just enough AMQP 0.9.1 to be connected: a client library would bring an asynchronous runtime.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result};

pub(crate) struct Connection(TcpStream);

impl Connection {
    /// Logs in with `amqp://user:password@host:port/vhost`.
    pub(crate) fn open(url: &str) -> Result<Self> {
        let (login, address) = url.strip_prefix("amqp://").and_then(|rest| rest.split_once('@')).context("no login")?;
        let (user, password) = login.split_once(':').context("no password")?;
        let (host, vhost) = address.split_once('/').context("no vhost")?;
        let stream = TcpStream::connect(host)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut connection = Self(stream);
        connection.0.write_all(b"AMQP\0\0\x09\x01")?;
        connection.read_frame().context("connection.start")?;
        let response = format!("\0{user}\0{password}");
        connection.send(11, &[long(b"")?, short("PLAIN")?, long(response.as_bytes())?, short("en_US")?].concat())?;
        connection.read_frame().context("connection.tune")?;
        let (channels, frame_bytes, heartbeat_seconds) = (10_u16, 131_072_u32, 60_u16);
        let limits = [&channels.to_be_bytes()[..], &frame_bytes.to_be_bytes(), &heartbeat_seconds.to_be_bytes()];
        connection.send(31, &limits.concat())?;
        connection.send(40, &[short(vhost)?, short("")?, vec![0]].concat())?;
        let opened = connection.read_frame().context("connection.open-ok")?;
        anyhow::ensure!(opened.starts_with(&[0, 10, 0, 41]), "not opened: {}", String::from_utf8_lossy(&opened));
        Ok(connection)
    }

    /// What the broker says next.
    pub(crate) fn read_frame(&mut self) -> Result<Vec<u8>> {
        let mut header = [0; 7];
        self.0.read_exact(&mut header)?;
        let length = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
        let mut payload = vec![0; usize::try_from(length)? + 1];
        self.0.read_exact(&mut payload)?;
        payload.pop();
        Ok(payload)
    }

    /// Whether the broker neither says anything nor hangs up for so long.
    pub(crate) fn is_silent_for(&mut self, time: Duration) -> Result<bool> {
        self.0.set_read_timeout(Some(time))?;
        match self.0.read(&mut [0]) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(true),
            Err(error) => Err(error.into()),
            Ok(_) => Ok(false),
        }
    }

    /// A method of class `connection`.
    fn send(&mut self, method: u16, arguments: &[u8]) -> Result<()> {
        let payload = [&10_u16.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
        let length = u32::try_from(payload.len())?.to_be_bytes();
        Ok(self.0.write_all(&[&[1, 0, 0][..], &length, &payload, &[0xce]].concat())?)
    }
}

fn short(text: &str) -> Result<Vec<u8>> {
    Ok([&[u8::try_from(text.len())?], text.as_bytes()].concat())
}

fn long(bytes: &[u8]) -> Result<Vec<u8>> {
    Ok([&u32::try_from(bytes.len())?.to_be_bytes(), bytes].concat())
}
