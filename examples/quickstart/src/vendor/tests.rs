use std::time::Duration;

use tidemill_runtime::tasks::Tasks;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Fault, Vendor};

/// What a call with this key gets before the connection ends.
async fn call(vendor: &Vendor, key: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(vendor.address).await?;
    let head =
        format!("GET /port?latitude=1&longitude=2 HTTP/1.1\r\nHost: vendor\r\nIdempotency-Key: {key}\r\n");
    stream.write_all(format!("{head}Connection: close\r\n\r\n").as_bytes()).await?;
    let mut answer = Vec::new();
    // a connection that is cut may end with an error after what it sent
    let read = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await;
    Ok(if read.is_err() { "nothing".to_owned() } else { String::from_utf8_lossy(&answer).into_owned() })
}

fn key_that_gets(wanted: Option<Fault>) -> String {
    let keys = (0..).map(|n| format!("key-{n}"));
    keys.into_iter().find(|key| Fault::of(1, key, 1) == wanted).unwrap_or_default()
}

#[tokio::test]
async fn each_fault_looks_like_what_it_is() {
    let tasks = Tasks::new();
    let vendor = Vendor::start(&tasks, 1).await.unwrap();
    for (fault, part) in [
        (Fault::Error500, "500 Internal"),
        (Fault::Busy503, "retry-after: 1"),
        (Fault::Throttled429, "429 Too Many"),
        (Fault::Torn, "content-length: "),
        (Fault::Forgotten, "nothing"),
    ] {
        let answer = call(&vendor, &key_that_gets(Some(fault))).await.unwrap();
        assert!(answer.contains(part), "{fault:?}: {answer}");
        assert!(!answer.contains("}}"), "{fault:?}: {answer}");
    }
    assert_eq!(call(&vendor, &key_that_gets(Some(Fault::Cut))).await.unwrap(), "");
    assert_eq!(vendor.counts().failures(), 6);
    assert_eq!(vendor.counts().succeeded, 0);
    tasks.shutdown(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_good_call_is_answered_and_counted_once() {
    let tasks = Tasks::new();
    let vendor = Vendor::start(&tasks, 1).await.unwrap();
    let key = key_that_gets(None);
    let answer = call(&vendor, &key).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("distance_km"), "{answer}");
    assert_eq!((vendor.counts().calls, vendor.counts().repeated_after_success), (1, 0));
    call(&vendor, &key).await.unwrap();
    assert_eq!((vendor.counts().calls, vendor.counts().repeated_after_success), (2, 1));
    tasks.shutdown(Duration::from_secs(1)).await;
}
