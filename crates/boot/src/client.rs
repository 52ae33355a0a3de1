//! From where a request comes.

use std::net::IpAddr;

/// The address of the client, in the extensions of each request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);
