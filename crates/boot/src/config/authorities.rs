use std::fs;

use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// Certificates of authorities that are trusted, as a PEM file holds them.
#[derive(Debug, Clone)]
pub struct Authorities(String);

impl Authorities {
    /// Reads them from the file at `path`.
    ///
    /// # Errors
    /// When the file cannot be read, or has no certificate in it.
    pub fn read(path: &str) -> Result<Self, String> {
        let pem = fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}"))?;
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        match certificates {
            Ok(certificates) if certificates.is_empty() => Err("there is no certificate in it".to_owned()),
            Ok(_) => Ok(Self(pem)),
            Err(error) => Err(format!("it is no PEM file: {error}")),
        }
    }

    /// The certificates, as the file holds them.
    pub fn pem(&self) -> &str {
        &self.0
    }
}
