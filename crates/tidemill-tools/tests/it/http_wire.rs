//! `http.request` on connections that end, answer or speak at the wrong moment.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;
use tidemill_tool::{ErrorClass, Feedback, Tool};
use tidemill_tools::HttpRequest;
use tidemill_tools::http::{Client, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::server::{Server, response};
use crate::{TestResult, call, call_with, code_of};

fn tool() -> Result<Arc<dyn Tool>, String> {
    let settings = Settings { allow_networks: vec!["127.0.0.0/8".to_owned()], ..Settings::default() };
    Ok(Arc::new(HttpRequest::new(Client::new(settings)?)))
}

/// Reads up to the empty line and not a byte further.
async fn read_head(stream: &mut TcpStream) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    Ok(())
}

/// A server that answers the first request of each connection and hangs up on the second.
async fn hanging_up() -> std::io::Result<Server> {
    let known: Mutex<HashSet<SocketAddr>> = Mutex::default();
    Server::start_raw(move |stream, _| {
        let is_first = stream
            .peer_addr()
            .is_ok_and(|peer| known.lock().unwrap_or_else(PoisonError::into_inner).insert(peer));
        Box::pin(async move {
            if is_first {
                stream.write_all(&response("200 OK", "", "x")).await?;
            }
            Ok(is_first)
        })
    })
    .await
}

#[tokio::test]
async fn a_kept_connection_that_ends_unanswered_costs_an_idempotent_call_nothing() -> TestResult {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE"] {
        let server = hanging_up().await?;
        let tool = tool()?;
        let input = json!({"url": server.url("/"), "method": method, "expect_status": ["2xx"]});
        call(&tool, &json!({"url": server.url("/")})).await?;
        call(&tool, &input).await?;
        assert_eq!((server.connections(), server.requests().len()), (2, 3), "{method}");
    }
    Ok(())
}

#[tokio::test]
async fn a_request_that_may_have_been_carried_out_is_not_sent_twice() -> TestResult {
    for method in ["POST", "PATCH", "LOCK"] {
        let server = hanging_up().await?;
        let tool = tool()?;
        call(&tool, &json!({"url": server.url("/")})).await?;
        let error = call(&tool, &json!({"url": server.url("/"), "method": method, "text": "pay"}))
            .await
            .err()
            .ok_or("it was sent again")?;
        assert_eq!(
            (error.code.as_ref(), error.class),
            ("connection_broken", ErrorClass::Connect),
            "{method}"
        );
        assert_eq!((server.connections(), server.requests().len()), (1, 2), "{method}");
    }
    Ok(())
}

#[tokio::test]
async fn a_call_that_a_limit_counts_is_one_request_whatever_its_method() -> TestResult {
    for method in ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST"] {
        let server = hanging_up().await?;
        let tool = tool()?;
        let (feedback, _listener) = Feedback::listening();
        call_with(&tool, &json!({"url": server.url("/")}), feedback.clone()).await?;
        let input = json!({"url": server.url("/"), "method": method});
        let error = call_with(&tool, &input, feedback).await.err().ok_or("it was sent again")?;
        assert_eq!((error.code.as_ref(), error.class), ("connection_broken", ErrorClass::Connect));
        assert_eq!((server.connections(), server.requests().len()), (1, 2), "{method}");
    }
    Ok(())
}

#[tokio::test]
async fn a_reset_of_a_kept_connection_is_one_request_of_a_counted_call() -> TestResult {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/", listener.local_addr()?);
    let (accepted, mut connections) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            if accepted.send(()).is_err() {
                return;
            }
            tokio::spawn(async move {
                read_head(&mut stream).await?;
                stream.write_all(&response("200 OK", "", "x")).await?;
                // Closed with the rest of the request unread, a socket is reset.
                stream.read_u8().await
            });
        }
    });
    let tool = tool()?;
    let (feedback, _listener) = Feedback::listening();
    call_with(&tool, &json!({"url": url}), feedback.clone()).await?;
    let error = call_with(&tool, &json!({"url": url}), feedback).await.err().ok_or("it was sent again")?;
    assert_eq!((error.code.as_ref(), error.class), ("connection_broken", ErrorClass::Connect));
    connections.recv().await.ok_or("no connection")?;
    assert!(connections.try_recv().is_err(), "the request went to a second connection");
    // Nobody counts this one: it makes the connection anew.
    call(&tool, &json!({"url": url})).await?;
    call(&tool, &json!({"url": url})).await?;
    assert_eq!((connections.try_recv(), connections.try_recv()), (Ok(()), Ok(())));
    Ok(())
}

#[tokio::test]
async fn a_new_connection_that_ends_unanswered_fails_the_call_at_once() -> TestResult {
    let server = Server::start(|_| Vec::new()).await?;
    assert_eq!(code_of(&tool()?, &json!({"url": server.url("/")})).await, "connection_broken");
    assert_eq!((server.connections(), server.requests().len()), (1, 1));
    Ok(())
}

#[tokio::test]
async fn a_kept_connection_that_breaks_inside_the_response_is_not_asked_again() -> TestResult {
    let server = Server::start(|request| {
        if request.contains("/cut") {
            return b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf".to_vec();
        }
        response("200 OK", "", "x")
    })
    .await?;
    let tool = tool()?;
    call(&tool, &json!({"url": server.url("/")})).await?;
    let input = json!({"url": server.url("/cut"), "max_response_bytes": 8});
    assert_eq!(code_of(&tool, &input).await, "response_too_large");
    assert_eq!((server.connections(), server.requests().len()), (1, 2));
    Ok(())
}

#[tokio::test]
async fn surplus_bytes_never_answer_another_call() -> TestResult {
    let server = Server::start(|request| {
        let surplus = response("200 OK", "", "forged");
        match request.split(' ').nth(1) {
            Some("/surplus") => [response("200 OK", "", "x"), surplus].concat(),
            Some("/empty") => [b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), surplus].concat(),
            _ => response("200 OK", "", "true"),
        }
    })
    .await?;
    let tool = tool()?;
    for path in ["/surplus", "/empty"] {
        call(&tool, &json!({"url": server.url(path)})).await?;
        assert_eq!(call(&tool, &json!({"url": server.url("/")})).await?["body"], "true");
    }
    Ok(())
}

#[tokio::test]
async fn a_response_that_nobody_asked_for_is_not_taken_for_one() -> TestResult {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let (sent, mut events) = mpsc::unbounded_channel();
    let (go, mut may_speak) = mpsc::unbounded_channel::<()>();
    tokio::spawn(async move {
        let (mut first, _) = listener.accept().await?;
        read_head(&mut first).await?;
        first.write_all(&response("200 OK", "", "one")).await?;
        may_speak.recv().await;
        first.write_all(&response("200 OK", "", "forged")).await?;
        sent.send(()).ok();
        let (mut second, _) = listener.accept().await?;
        read_head(&mut second).await?;
        second.write_all(&response("200 OK", "", "two")).await?;
        Ok::<_, std::io::Error>((first, second))
    });
    let tool = tool()?;
    let input = json!({"url": format!("http://{address}/")});
    assert_eq!(call(&tool, &input).await?["body"], "one");
    go.send(())?;
    events.recv().await.ok_or("the server ended")?;
    // A turn of the runtime, in which the socket learns that there is something to read.
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(call(&tool, &input).await?["body"], "two");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_comes_before_the_body_is_sent_is_read() -> TestResult {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        read_head(&mut stream).await?;
        // It reads no further, so that the request cannot be written to its end.
        stream.write_all(&response("413 Too Large", "", "no")).await?;
        std::future::pending::<()>().await;
        Ok::<_, std::io::Error>(stream)
    });
    let body = "x".repeat(16 * 1024 * 1024);
    let input = json!({"url": format!("http://{address}/"), "text": body, "expect_status": [413]});
    assert_eq!(call(&tool()?, &input).await?["body"], "no");
    Ok(())
}

#[tokio::test]
async fn a_large_body_arrives_whole_while_it_is_echoed() -> TestResult {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let length = 900 * 1024;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        read_head(&mut stream).await?;
        stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n").as_bytes()).await?;
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut from, &mut to).await
    });
    let body: String =
        (0..length).map(|index| char::from(b'a' + u8::try_from(index % 23).unwrap_or(0))).collect();
    let output = call(&tool()?, &json!({"url": format!("http://{address}/"), "text": body})).await?;
    assert!(output["body"] == body.as_str(), "the echo differs");
    Ok(())
}

#[tokio::test]
async fn responses_of_old_and_careful_servers_are_read() -> TestResult {
    let server = Server::start_raw(|stream, request| {
        Box::pin(async move {
            let (bytes, goes_on): (&[u8], _) = match request.split(' ').nth(1) {
                Some("/old") => (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", false),
                Some("/head") => (b"HTTP/1.1 200 OK\r\ncontent-length: 5000000\r\nx-a: b\r\n\r\n", true),
                Some("/early") => (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", true),
                Some("/both") => (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", true),
                _ => (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2;a=b\r\nok\r\n0\r\nx-sum: 1\r\n\r\n", true),
            };
            // Byte by byte, as a slow network may bring it.
            for byte in bytes {
                stream.write_all(&[*byte]).await?;
                tokio::task::yield_now().await;
            }
            Ok(goes_on)
        })
    })
    .await?;
    let tool = tool()?;
    for (path, body) in [("/early", "ok"), ("/chunks", "ok"), ("/old", "until the end")] {
        assert_eq!(call(&tool, &json!({"url": server.url(path)})).await?["body"], body, "{path}");
    }
    let output = call(&tool, &json!({"url": server.url("/head"), "method": "HEAD"})).await?;
    assert_eq!((&output["body"], &output["headers"]["x-a"]), (&json!(null), &json!("b")));
    assert_eq!(code_of(&tool, &json!({"url": server.url("/both")})).await, "bad_response");
    assert_eq!(server.connections(), 2);
    Ok(())
}

#[tokio::test]
async fn a_request_without_a_body_says_so_where_one_is_expected() -> TestResult {
    let server = Server::start(|_| response("200 OK", "", "")).await?;
    let tool = tool()?;
    for (method, says) in [("POST", true), ("PUT", true), ("PATCH", true), ("GET", false), ("DELETE", false)]
    {
        call(&tool, &json!({"url": server.url("/"), "method": method})).await?;
        let request = server.requests().pop().unwrap_or_default();
        assert_eq!(request.contains("\r\ncontent-length: 0\r\n"), says, "{request}");
    }
    Ok(())
}
