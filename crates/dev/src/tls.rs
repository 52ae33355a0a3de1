//! What a server needs for TLS.

use std::path::PathBuf;

/// PEM files of a server's certificate and of its key.
#[derive(Clone, Debug)]
pub struct TlsFiles {
    /// Its certificate, with those between it and its authority.
    pub certificate: PathBuf,
    /// The key of the certificate.
    pub key: PathBuf,
}
