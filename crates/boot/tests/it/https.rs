//! HTTPS, with a certificate of an authority that only those trust who are told to.

use std::path::Path;

use boot::config::Authorities;
use boot::http::Server;

use crate::authority::Authority;
use crate::server::{Folder, configured, serve};

fn flags<'f>(certificate: &'f Path, key: &'f Path) -> [&'f str; 4] {
    ["--tls-cert-file", certificate.to_str().unwrap(), "--tls-key-file", key.to_str().unwrap()]
}

fn read(folder: &Folder, authority: &Authority) -> Authorities {
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, authority.pem()).unwrap();
    Authorities::read(file.to_str().unwrap()).unwrap()
}

#[tokio::test]
async fn who_trusts_the_authority_is_answered_and_nobody_else() {
    let (folder, ours, other) = (Folder::create("https"), Authority::new("ours"), Authority::new("other"));
    let (certificate, key) = ours.issue(folder.path());
    let served = serve(&flags(&certificate, &key)).await;
    let url = format!("https://localhost:{}/", served.address.port());

    let client = |authorities: Option<&Authorities>| boot::neighbour::client(authorities).unwrap().build().unwrap();
    let trusting = client(Some(&read(&folder, &ours)));
    let answer = trusting.get(&url).send().await.unwrap();
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=31536000");
    assert_eq!(answer.text().await.unwrap(), "hello");

    for stranger in [client(Some(&read(&folder, &other))), client(None)] {
        let refused = format!("{:?}", stranger.get(&url).send().await.unwrap_err());
        assert!(refused.contains("UnknownIssuer"), "{refused}");
    }
    // Plain HTTP is no TLS, and hinders nobody.
    let mut line = served.connect().await;
    line.write("GET / HTTP/1.1\r\nhost: it\r\n\r\n").await;
    line.ended().await;
    assert_eq!(trusting.get(&url).send().await.unwrap().text().await.unwrap(), "hello");
}

#[tokio::test]
async fn a_client_that_never_says_hello_delays_no_end() {
    let (folder, ours) = (Folder::create("hello"), Authority::new("ours"));
    let (certificate, key) = ours.issue(folder.path());
    let served = serve(&flags(&certificate, &key)).await;
    let mut silent = served.connect().await;
    let trusting = boot::neighbour::client(Some(&read(&folder, &ours))).unwrap().build().unwrap();
    // Those who came after are answered, so it is in hand by now.
    trusting.get(format!("https://localhost:{}/", served.address.port())).send().await.unwrap();
    drop(trusting);
    served.shutdown.cancel();
    let begun = std::time::Instant::now();
    served.ended.await.unwrap().unwrap();
    assert!(begun.elapsed() < std::time::Duration::from_secs(5), "less than a handshake may take");
    silent.ended().await;
}

#[test]
fn a_certificate_and_its_key_belong_together() {
    let (folder, elsewhere) = (Folder::create("pair"), Folder::create("other-pair"));
    let (certificate, key) = Authority::new("one").issue(folder.path());
    let (_, other_key) = Authority::new("another").issue(elsewhere.path());
    let alone = configured(&["--tls-cert-file", certificate.to_str().unwrap()]).unwrap_err();
    assert!(alone.contains("--tls-key-file"), "{alone}");
    let alone = configured(&["--tls-key-file", key.to_str().unwrap()]).unwrap_err();
    assert!(alone.contains("--tls-cert-file"), "{alone}");

    let missing = folder.path().join("missing");
    for (certificate, key, reason) in [
        (&certificate, &other_key, "cannot use "),
        (&certificate, &missing, "cannot read a key from "),
        (&missing, &key, "cannot read certificates from "),
        (&certificate, &certificate, "cannot read a key from "),
        (&key, &key, "there is no certificate in "),
    ] {
        let refused = Server::new(&configured(&flags(certificate, key)).unwrap()).err().unwrap();
        assert!(format!("{refused:#}").starts_with(reason), "{refused:#}");
    }
    assert!(Authorities::read(missing.to_str().unwrap()).unwrap_err().starts_with("it cannot be read: "));
    assert_eq!(Authorities::read(key.to_str().unwrap()).unwrap_err(), "there is no certificate in it");
}
