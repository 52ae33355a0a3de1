//! Whose address a route is told.

use crate::server::{client, serve};

async fn told(flags: &[&str]) -> String {
    let served = serve(flags).await;
    let request = client().get(served.url("/whoami")).header("x-forwarded-for", "127.0.0.9, 2001:db8::7");
    request.send().await.unwrap().text().await.unwrap()
}

#[tokio::test]
async fn the_address_is_the_peers_unless_a_header_is_trusted() {
    assert_eq!(told(&[]).await, "127.0.0.1");
    assert_eq!(told(&["--client-address-header", "X-Real-IP"]).await, "127.0.0.1");
    assert_eq!(told(&["--client-address-header", "X-Forwarded-For"]).await, "2001:db8::7");
}
