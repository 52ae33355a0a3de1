//! Whom a request comes from.

use std::net::{IpAddr, Ipv6Addr};

use axum::http::{HeaderMap, HeaderName};

/// The address of the client; an extension of every request that is served.
///
/// It is that of the other end of the connection, or, where `CLIENT_ADDRESS_HEADER` names a header, the one in there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientAddress(pub IpAddr);

impl ClientAddress {
    /// What counts as one client: an address of version 4, or of version 6 the network, of which everybody has 2^64.
    pub fn network(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(_) => self.0,
            IpAddr::V6(address) => {
                const HOST_BITS: u32 = 64;
                Ipv6Addr::from_bits(address.to_bits() >> HOST_BITS << HOST_BITS).into()
            }
        }
    }

    /// Of the addresses in `header` the last counts: the proxy nearest to us wrote it, the others are what the client
    /// says of itself. Where it is no address, `peer` counts.
    pub(crate) fn of(peer: IpAddr, headers: &HeaderMap, header: Option<&HeaderName>) -> Self {
        let told = header.and_then(|name| {
            let last = headers.get_all(name).iter().next_back()?.to_str().ok()?;
            last.rsplit(',').next()?.trim().parse::<IpAddr>().ok()
        });
        // Of a socket for both versions, a client of version 4 has an address of version 6.
        Self(told.unwrap_or(peer).to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORWARDED: HeaderName = HeaderName::from_static("x-forwarded-for");

    fn of(peer: &str, lines: &[&str], header: Option<&HeaderName>) -> String {
        let headers = lines.iter().map(|line| (FORWARDED, line.parse().unwrap())).collect();
        ClientAddress::of(peer.parse().unwrap(), &headers, header).0.to_string()
    }

    #[test]
    fn a_client_of_version_6_is_its_network() {
        let network = |address: &str| ClientAddress(address.parse().unwrap()).network().to_string();
        assert_eq!(network("203.0.113.7"), "203.0.113.7");
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
    }

    #[test]
    fn without_a_trusted_header_the_peer_counts_whatever_is_claimed() {
        assert_eq!(of("192.0.2.1", &[], None), "192.0.2.1");
        assert_eq!(of("192.0.2.1", &["198.51.100.7"], None), "192.0.2.1");
        assert_eq!(of("2001:db8::1", &["198.51.100.7"], None), "2001:db8::1");
        assert_eq!(of("::ffff:192.0.2.1", &[], None), "192.0.2.1");
    }

    #[test]
    fn what_the_nearest_proxy_wrote_counts() {
        let cases: [(&[&str], &str); 7] = [
            (&["198.51.100.7"], "198.51.100.7"),
            (&[" 2001:db8::7 "], "2001:db8::7"),
            (&["::ffff:198.51.100.7"], "198.51.100.7"),
            (&["127.0.0.1, 198.51.100.7"], "198.51.100.7"),
            (&["10.0.0.1,10.0.0.2,2001:db8::7"], "2001:db8::7"),
            // Proxies may add a line instead of going on with one.
            (&["127.0.0.1", "198.51.100.7"], "198.51.100.7"),
            (&["not an address, 198.51.100.7"], "198.51.100.7"),
        ];
        for (lines, expected) in cases {
            assert_eq!(of("192.0.2.1", lines, Some(&FORWARDED)), expected, "{lines:?}");
        }
    }

    #[test]
    fn where_the_header_is_missing_or_malformed_the_peer_counts() {
        let cases: [&[&str]; 7] = [
            &[],
            &[""],
            &["unknown"],
            &["198.51.100.7,"],
            &["198.51.100.7, unknown"],
            &["198.51.100.7:8080"],
            &["198.51.100.7", "256.0.0.1"],
        ];
        for lines in cases {
            assert_eq!(of("192.0.2.1", lines, Some(&FORWARDED)), "192.0.2.1", "{lines:?}");
        }
        let latin = [(FORWARDED, axum::http::HeaderValue::from_bytes(b"\xe4").unwrap())].into_iter().collect();
        let peer = "192.0.2.1".parse().unwrap();
        assert_eq!(ClientAddress::of(peer, &latin, Some(&FORWARDED)), ClientAddress(peer));
    }
}
