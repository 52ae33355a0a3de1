//! What a client may take of a server.

use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt as _;

use crate::server::{DEADLINE, serve};

#[tokio::test]
async fn a_head_that_never_ends_is_cut_off() {
    let served = serve(&["--http-head-timeout-seconds", "1"]).await;
    let begun = Instant::now();
    let mut line = served.connect().await;
    line.write("GET / HTTP/1.1\r\nhost: it\r\n").await;
    // A line now and then does not help: the head as a whole has its time.
    while line.0.write_all(b"x: y\r\n").await.is_ok() {
        assert!(begun.elapsed() < DEADLINE, "still not cut off");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(begun.elapsed() >= Duration::from_secs(1), "an honest head has its time");
}

#[tokio::test]
async fn a_connection_that_is_not_used_is_closed() {
    let served = serve(&["--http-head-timeout-seconds", "1"]).await;
    let (mut silent, mut once) = (served.connect().await, served.connect().await);
    once.ask().await;
    assert_eq!((silent.closed().await, once.closed().await), (String::new(), String::new()));
}

#[tokio::test]
async fn beyond_the_most_connections_the_next_waits_until_one_ends() {
    let served = serve(&["--http-max-connections", "2"]).await;
    let (mut first, mut second, mut third) = (served.connect().await, served.connect().await, served.connect().await);
    first.ask().await;
    second.ask().await;
    third.write("GET / HTTP/1.1\r\nhost: it\r\n\r\n").await;
    // Those that are served are served on, and what came before is not answered by then.
    for _ in 0..20 {
        first.ask().await;
        second.ask().await;
    }
    let mut byte = [0];
    assert_eq!(third.0.try_read(&mut byte).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(first);
    third.read_to("hello").await;
    second.ask().await;
}

#[tokio::test]
async fn after_the_end_idle_connections_are_closed_and_none_is_taken() {
    let served = serve(&[]).await;
    let (mut used, mut silent) = (served.connect().await, served.connect().await);
    used.ask().await;
    served.shutdown.cancel();
    assert_eq!((used.closed().await, silent.closed().await), (String::new(), String::new()));
    tokio::time::timeout(DEADLINE, served.ended).await.unwrap().unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(served.address).await.is_err());
}
