//! `http.request` against servers that behave and servers that do not.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tidemill_tool::{ErrorClass, Tool};
use tidemill_tools::HttpRequest;
use tidemill_tools::http::{Client, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::server::{Server, response};
use crate::{TestResult, call, code_of};

fn tool_with(settings: Settings) -> Result<Arc<dyn Tool>, String> {
    let settings = Settings { allow_networks: vec!["127.0.0.0/8".to_owned()], ..settings };
    Ok(Arc::new(HttpRequest::new(Client::new(settings)?)))
}

fn tool() -> Result<Arc<dyn Tool>, String> {
    tool_with(Settings::default())
}

#[tokio::test]
async fn a_request_is_sent_as_it_was_asked_for() -> TestResult {
    let server = Server::start(|_| {
        response(
            "200 OK",
            "content-type: application/json; charset=utf-8\r\nx-a: 1\r\nx-a: 2\r\n",
            "{\"ok\" : [1,2]}",
        )
    })
    .await?;
    let output = call(
        &tool()?,
        &json!({"method": "put", "url": server.url("/a/{id}?x=1"), "path": {"id": "../b c"}, "query": {"q": ["ä", 2]},
            "headers": {"X-Mine": "yes"}, "json": {"n": 1}}),
    )
    .await?;
    assert_eq!(output["status"], 200);
    assert_eq!(output["body"], json!({"ok": [1, 2]}));
    assert_eq!(output["headers"]["x-a"], "1, 2");
    let requests = server.requests();
    let request = requests.first().ok_or("no request came")?;
    assert!(request.starts_with("PUT /a/..%2Fb%20c?x=1&q=%C3%A4&q=2 HTTP/1.1\r\n"), "{request}");
    for line in [
        format!("host: {}", server.address),
        "x-mine: yes".to_owned(),
        "content-type: application/json".to_owned(),
        "idempotency-key: job-7/hold".to_owned(),
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(),
    ] {
        assert!(request.contains(&format!("\r\n{line}\r\n")), "`{line}` is missing in {request}");
    }
    assert!(request.ends_with("\r\n\r\n{\"n\":1}"), "{request}");
    Ok(())
}

#[tokio::test]
async fn bodies_come_as_json_text_or_bytes() -> TestResult {
    let server = Server::start(|request| {
        if request.contains("/gzip") {
            return response("200 OK", "content-type: application/json\r\ncontent-encoding: gzip\r\n", "zip");
        }
        if request.contains("/bytes") {
            return b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n\xff\xfe".to_vec();
        }
        if request.contains("/none") {
            return b"HTTP/1.1 204 No Content\r\n\r\n".to_vec();
        }
        if request.contains("/problem") {
            return response("200 OK", "content-type: application/problem+json\r\n", "{}");
        }
        response("200 OK", "content-type: text/html\r\n", "{\"a\":1}")
    })
    .await?;
    let tool = tool()?;
    let of =
        async |path: &str, kind: &str| call(&tool, &json!({"url": server.url(path), "response": kind})).await;
    assert_eq!(of("/text", "auto").await?["body"], "{\"a\":1}");
    assert_eq!(of("/text", "json").await?["body"], json!({"a": 1}));
    assert_eq!(of("/text", "bytes").await?["body_base64"], "eyJhIjoxfQ==");
    assert_eq!(of("/gzip", "auto").await?["body_base64"], "emlw");
    assert_eq!(of("/bytes", "auto").await?["body_base64"], "//4=");
    assert_eq!(of("/none", "auto").await?["body"], Value::Null);
    assert_eq!(of("/problem", "auto").await?["body"], json!({}));
    assert_eq!(
        code_of(&tool, &json!({"url": server.url("/bytes"), "response": "text"})).await,
        "body_not_text"
    );
    assert_eq!(
        code_of(&tool, &json!({"url": server.url("/gzip"), "response": "json"})).await,
        "body_not_json"
    );
    Ok(())
}

#[tokio::test]
async fn a_status_that_is_not_wanted_is_an_error_of_its_class() -> TestResult {
    let server = Server::start(|request| {
        let status =
            request.split('/').nth(1).and_then(|rest| rest.split([' ', '?']).next()).unwrap_or_default();
        response(&format!("{status} X"), "", "because\n\u{1b}[31m")
    })
    .await?;
    let tool = tool()?;
    for (status, class) in [
        (400, ErrorClass::Client),
        (404, ErrorClass::Client),
        (408, ErrorClass::Timeout),
        (429, ErrorClass::Throttled),
        (500, ErrorClass::Server),
        (503, ErrorClass::Server),
        (304, ErrorClass::Client),
    ] {
        let error = call(&tool, &json!({"url": server.url(&format!("/{status}?token=canary"))}))
            .await
            .err()
            .ok_or("no error")?;
        assert_eq!((error.class, error.code.as_ref()), (class, "http_status"), "{status}");
        assert!(!error.message.contains("canary") && !error.message.contains('\u{1b}'), "{}", error.message);
    }
    let output = call(&tool, &json!({"url": server.url("/404"), "expect_status": ["2xx", 404]})).await?;
    assert_eq!(output["status"], 404);
    assert_eq!(
        code_of(&tool, &json!({"url": server.url("/200"), "expect_status": [404]})).await,
        "http_status"
    );
    Ok(())
}

#[tokio::test]
async fn retry_after_is_read_as_seconds_and_as_a_date() -> TestResult {
    let server = Server::start(|request| {
        let header = if request.contains("/seconds") {
            "retry-after: 7\r\n"
        } else if request.contains("/date") {
            "date: Sat, 21 Nov 2026 12:00:00 GMT\r\nretry-after: Sat, 21 Nov 2026 12:01:30 GMT\r\n"
        } else if request.contains("/past") {
            "date: Sat, 21 Nov 2026 12:00:00 GMT\r\nretry-after: Sat, 21 Nov 2026 11:00:00 GMT\r\n"
        } else {
            "retry-after: soon\r\n"
        };
        response("429 Too Many Requests", header, "")
    })
    .await?;
    let tool = tool()?;
    for (path, wait) in [("/seconds", Some(7)), ("/date", Some(90)), ("/past", Some(0)), ("/odd", None)] {
        let error = call(&tool, &json!({"url": server.url(path)})).await.err().ok_or("no error")?;
        assert_eq!(
            (error.class, error.retry_after),
            (ErrorClass::Throttled, wait.map(Duration::from_secs)),
            "{path}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_response_that_breaks_off_or_is_no_http_is_named() -> TestResult {
    let server = Server::start_raw(|stream, request| {
        Box::pin(async move {
            let bytes: &[u8] = if request.contains("/cut") {
                b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
            } else if request.contains("/head") {
                b"HTTP/1.1 200 OK\r\ncontent-le"
            } else if request.contains("/noise") {
                b"SSH-2.0-OpenSSH_9.2\r\n"
            } else if request.contains("/json") {
                b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 3\r\n\r\n{\"a"
            } else {
                b""
            };
            stream.write_all(bytes).await?;
            Ok(false)
        })
    })
    .await?;
    let tool = tool()?;
    for (path, code, class) in [
        ("/cut", "connection_broken", ErrorClass::Connect),
        ("/head", "connection_broken", ErrorClass::Connect),
        ("/nothing", "connection_broken", ErrorClass::Connect),
        ("/noise", "bad_response", ErrorClass::BadContent),
        ("/json", "body_not_json", ErrorClass::BadContent),
    ] {
        let error = call(&tool, &json!({"url": server.url(path)})).await.err().ok_or("no error")?;
        assert_eq!((error.code.as_ref(), error.class), (code, class), "{path}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn an_endless_response_is_cut_off_at_the_limit() -> TestResult {
    let (sent, mut written) = mpsc::unbounded_channel();
    let server = Server::start_raw(move |stream, request| {
        let sent = sent.clone();
        Box::pin(async move {
            if request.contains("/announced") {
                stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n").await?;
                return Ok(true);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await?;
            let chunk = [b"1000\r\n".to_vec(), vec![b'x'; 4096], b"\r\n".to_vec()].concat();
            while stream.write_all(&chunk).await.is_ok() {}
            sent.send(()).ok();
            Ok(false)
        })
    })
    .await?;
    let tool = tool_with(Settings { max_response_bytes: 100_000, ..Settings::default() })?;
    assert_eq!(code_of(&tool, &json!({"url": server.url("/endless")})).await, "response_too_large");
    written.recv().await.ok_or("the server still writes")?;
    assert_eq!(code_of(&tool, &json!({"url": server.url("/announced")})).await, "response_too_large");
    Ok(())
}

#[tokio::test]
async fn deep_json_and_a_huge_head_are_refused() -> TestResult {
    let server = Server::start(|request| {
        if request.contains("/deep") {
            return response("200 OK", "content-type: application/json\r\n", &"[".repeat(100_000));
        }
        response("200 OK", &format!("x-huge: {}\r\n", "x".repeat(200_000)), "")
    })
    .await?;
    assert_eq!(code_of(&tool()?, &json!({"url": server.url("/deep")})).await, "body_too_deep");
    assert_eq!(code_of(&tool()?, &json!({"url": server.url("/head")})).await, "bad_response");
    Ok(())
}

#[tokio::test]
async fn dropping_the_call_closes_the_connection() -> TestResult {
    let (seen, mut events) = mpsc::unbounded_channel();
    let server = Server::start_raw(move |stream, _| {
        let seen = seen.clone();
        Box::pin(async move {
            seen.send("asked").ok();
            let mut byte = [0];
            // The client says nothing more: this ends when it is gone.
            let count = stream.read(&mut byte).await.unwrap_or_default();
            seen.send(if count == 0 { "closed" } else { "more" }).ok();
            Ok(false)
        })
    })
    .await?;
    let tool = tool()?;
    let input = json!({"url": server.url("/stall")});
    tokio::select! {
        output = call(&tool, &input) => return Err(format!("the stalled call ended with {output:?}").into()),
        event = events.recv() => assert_eq!(event, Some("asked")),
    }
    assert_eq!(events.recv().await, Some("closed"));
    Ok(())
}

#[tokio::test]
async fn a_connection_is_used_again_and_a_dead_one_replaced() -> TestResult {
    let server = Server::start(|request| {
        let headers = if request.contains("/last") { "connection: close\r\n" } else { "" };
        response("200 OK", headers, "x")
    })
    .await?;
    let tool = tool()?;
    for _ in 0..5 {
        call(&tool, &json!({"url": server.url("/")})).await?;
    }
    assert_eq!(server.connections(), 1);
    call(&tool, &json!({"url": server.url("/last")})).await?;
    call(&tool, &json!({"url": server.url("/")})).await?;
    assert_eq!(server.connections(), 2);
    Ok(())
}

#[tokio::test]
async fn a_connection_that_the_server_closed_meanwhile_costs_no_call() -> TestResult {
    let server = Server::start_raw(|stream, _| {
        Box::pin(async move {
            stream.write_all(&response("200 OK", "", "x")).await?;
            Ok(false)
        })
    })
    .await?;
    let tool = tool()?;
    for _ in 0..50 {
        call(&tool, &json!({"url": server.url("/")})).await?;
        // Lets the server's close arrive, as it does between two jobs.
        tokio::task::yield_now().await;
    }
    Ok(())
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_a_connect_error() -> TestResult {
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    drop(listener);
    let error =
        call(&tool()?, &json!({"url": format!("http://{address}/")})).await.err().ok_or("no error")?;
    assert_eq!((error.class, error.code.as_ref()), (ErrorClass::Connect, "connect_failed"));
    Ok(())
}

#[tokio::test]
async fn an_input_that_does_not_fit_is_refused_by_name() -> TestResult {
    let tool = tool()?;
    for (input, part) in [
        (json!({"url": "http://a/", "ulr": 1}), "ulr"),
        (json!({}), "url"),
        (json!({"url": "/relative"}), "absolute"),
        (json!({"url": "http://u:p@a/"}), "credentials"),
        (json!({"url": "http://a/\r\nX: y"}), "control character"),
        (json!({"url": "http://a/", "headers": {"X": "a\r\nY: b"}}), "line break"),
        (json!({"url": "http://a/", "headers": {"X\r\n": "a"}}), "not the name"),
        (json!({"url": "http://a/", "headers": {"Host": "b"}}), "Host"),
        (json!({"url": "http://a/", "headers": {"Transfer-Encoding": "chunked"}}), "Transfer-Encoding"),
        (json!({"url": "http://a/", "json": 1, "text": "x"}), "only one"),
        (json!({"url": "http://a/", "bytes_base64": "?"}), "bytes_base64"),
        (json!({"url": "http://a/", "method": "GE T"}), "method"),
        (json!({"url": "http://a/", "method": "CONNECT"}), "CONNECT"),
        (json!({"url": "http://a/", "expect_status": ["9xx"]}), "9xx"),
        (json!({"url": "http://a/{x}"}), "path.x"),
        (json!({"url": "http://a/{x}", "path": {"x": ".."}}), "path.x"),
        (json!({"url": "http://{x}/", "path": {"x": "b"}}), "{x}"),
        (json!([]), "struct"),
    ] {
        let error = call(&tool, &input).await.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with("invalid_input") && error.contains(part), "{input}: {error}");
    }
    Ok(())
}
