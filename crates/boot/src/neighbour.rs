//! How one service asks another over HTTP.

use reqwest::{Certificate, Client, ClientBuilder};

use crate::config::Authorities;

/// A client of a service beside this one: no proxy has business between us, and where it speaks HTTPS, its certificate
/// is of one of `authorities`, or, where none are given, of one the system trusts.
///
/// # Errors
/// When the authorities cannot be used.
pub fn client(authorities: Option<&Authorities>) -> anyhow::Result<ClientBuilder> {
    let trusted = match authorities {
        Some(authorities) => Certificate::from_pem_bundle(authorities.pem().as_bytes())?,
        // reqwest by itself refuses to work at all where the system trusts nobody, as in our images, even over HTTP.
        None => rustls_native_certs::load_native_certs()
            .certs
            .iter()
            .filter_map(|certificate| Certificate::from_der(certificate).ok())
            .collect(),
    };
    Ok(Client::builder().no_proxy().tls_certs_only(trusted))
}
