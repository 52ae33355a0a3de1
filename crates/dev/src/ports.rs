//! Free TCP ports on the loopback interface.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Result, bail};

/// Below the range the kernel hands out to outgoing connections (32768 and up on Linux), so that none of those takes
/// a port between our choice and the server's bind.
const FIRST: u32 = 20_000;
const COUNT: u32 = 12_000;

/// `wanted` where nothing listens on it, otherwise any free port.
pub fn prefer(wanted: u16) -> Result<u16> {
    if is_free(wanted) { Ok(wanted) } else { any() }
}

/// A free port that no earlier call of this process returned.
pub fn any() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Processes start at different places, so that two of them rarely try the same port at the same time.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..COUNT {
        let offset = start.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT;
        let port = u16::try_from(FIRST + offset)?;
        if is_free(port) {
            return Ok(port);
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_replaced_by_another() {
        let taken = any().unwrap();
        let _listener = TcpListener::bind((Ipv4Addr::LOCALHOST, taken)).unwrap();
        assert_ne!(prefer(taken).unwrap(), taken);
    }

    #[test]
    fn a_free_port_is_kept() {
        let free = any().unwrap();
        assert_eq!(prefer(free).unwrap(), free);
    }
}
