//! The network that a test can break.

use std::net::SocketAddr;
use std::time::Duration;

use testkit::proxy::Proxy;
use testkit::{clock, wait};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const SOON: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(100);

/// A server that sends back what it is sent.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.into_split();
                let _ = tokio::io::copy(&mut reader, &mut writer).await;
            });
        }
    });
    address
}

async fn connected() -> (Proxy, TcpStream) {
    let proxy = Proxy::start(echo().await).await.unwrap();
    let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(say(&mut stream, b"hello").await, b"hello");
    (proxy, stream)
}

/// Sends and reads as many bytes back.
async fn say(stream: &mut TcpStream, bytes: &[u8]) -> Vec<u8> {
    stream.write_all(bytes).await.unwrap();
    heard(stream, bytes.len()).await
}

async fn heard(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut back = vec![0; len];
    let read = wait::in_time("an echo", SOON, stream.read_exact(&mut back)).await;
    read.unwrap();
    back
}

async fn is_closed(stream: &mut TcpStream) -> bool {
    let read = wait::in_time("an end", SOON, stream.read(&mut [0; 1])).await;
    matches!(read, Ok(0) | Err(_))
}

#[tokio::test]
async fn a_pause_holds_bytes_back_and_loses_none() {
    let (proxy, mut stream) = connected().await;
    proxy.pause();
    stream.write_all(b"held").await.unwrap();
    wait::never("an echo", MOMENT, stream.read(&mut [0; 4])).await;
    proxy.open();
    assert_eq!(heard(&mut stream, 4).await, b"held");
}

#[tokio::test]
async fn a_black_hole_keeps_connections_until_it_opens() {
    let (proxy, mut stream) = connected().await;
    proxy.swallow();
    stream.write_all(b"lost").await.unwrap();
    wait::never("an echo or an end", MOMENT, stream.read(&mut [0; 4])).await;
    proxy.open();
    assert!(is_closed(&mut stream).await);
}

#[tokio::test]
async fn a_cut_closes_old_and_new_connections_until_it_is_mended() {
    let (proxy, mut stream) = connected().await;
    proxy.cut();
    assert!(is_closed(&mut stream).await);
    let mut refused = TcpStream::connect(proxy.address()).await.unwrap();
    assert!(is_closed(&mut refused).await);
    proxy.open();
    let mut fresh = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(say(&mut fresh, b"again").await, b"again");
}

#[tokio::test]
async fn it_can_cut_in_the_middle_of_a_transfer() {
    let (proxy, mut stream) = connected().await;
    proxy.cut_after(100_000);
    let (mut reader, mut writer) = stream.split();
    let (_, back) = tokio::join!(writer.write_all(&[7; 1_000_000]), async {
        let mut back = Vec::new();
        let _ = reader.read_to_end(&mut back).await;
        back
    });
    assert!(back.len() < 1_000_000, "{}", back.len());
    assert!(proxy.passed_bytes() >= 100_000);
    let mut fresh = TcpStream::connect(proxy.address()).await.unwrap();
    assert_eq!(say(&mut fresh, b"again").await, b"again");
}

#[tokio::test]
async fn a_slow_network_delivers_late() {
    let (proxy, mut stream) = connected().await;
    proxy.slow(MOMENT);
    let sent_at = clock::now();
    assert_eq!(say(&mut stream, b"late").await, b"late");
    // It waits there and back; the clock tells whole milliseconds.
    let took_ms = u128::from(clock::now().since(sent_at));
    assert!(took_ms + 1 >= 2 * MOMENT.as_millis(), "{took_ms} ms");
}

#[tokio::test]
async fn a_lost_answer_was_given_and_nobody_got_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = Proxy::start(listener.local_addr().unwrap()).await.unwrap();
    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let (mut server, _) = listener.accept().await.unwrap();
    proxy.lose_answers();
    client.write_all(b"do").await.unwrap();
    assert_eq!(heard(&mut server, 2).await, b"do");
    server.write_all(b"done").await.unwrap();
    wait::never("an answer", MOMENT, client.read(&mut [0; 4])).await;
    proxy.open();
    assert!(is_closed(&mut client).await);
}
