//! What `http.request` tells about the service that it called, and how often it calls.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidemill_tool::{Advertised, ErrorClass, Feedback, Observed, Tool};
use tidemill_tools::HttpRequest;
use tidemill_tools::http::{Client, Settings};

use crate::server::{Server, response};
use crate::{TestResult, call, call_with};

/// What every answer of these servers advertises.
const ADVERTISED: &str = "ratelimit-policy: \"burst\";q=100;w=60\r\nratelimit: \"burst\";r=99;t=30\r\n";

fn tool() -> Result<Arc<dyn Tool>, String> {
    let settings = Settings { allow_networks: vec!["127.0.0.0/8".to_owned()], ..Settings::default() };
    Ok(Arc::new(HttpRequest::new(Client::new(settings)?)))
}

fn burst() -> Advertised {
    Advertised {
        limit: Some(100.0),
        remaining: Some(99.0),
        reset_in: Some(Duration::from_secs(30)),
        window: Some(Duration::from_secs(60)),
        ..Advertised::of("requests")
    }
}

/// A server that answers with the status in the path, and wants to be left alone for 7 s.
async fn answering_with_the_status_of_the_path() -> std::io::Result<Server> {
    Server::start(|request| {
        let status = request.split(['/', ' ']).nth(2).unwrap_or_default().to_owned();
        response(&format!("{status} x"), &format!("{ADVERTISED}retry-after: 7\r\n"), "")
    })
    .await
}

#[tokio::test]
async fn limits_are_told_on_success_and_on_failure() -> TestResult {
    let server = answering_with_the_status_of_the_path().await?;
    let tool = tool()?;
    let wait = Some(Duration::from_secs(7));
    for (status, class, for_all) in [
        (200, None, None),
        (404, Some(ErrorClass::Client), None),
        (429, Some(ErrorClass::Throttled), wait),
        (403, Some(ErrorClass::Throttled), wait),
        (503, Some(ErrorClass::Server), wait),
        (529, Some(ErrorClass::Server), wait),
    ] {
        let (feedback, listener) = Feedback::listening();
        let result = call_with(&tool, &json!({"url": server.url(&format!("/{status}"))}), feedback).await;
        let heard = Observed { advertised: vec![burst()], retry_after: for_all, ..Observed::default() };
        assert_eq!(listener.take(), heard, "{status}");
        assert_eq!(result.as_ref().err().map(|error| error.class), class, "{status}");
        assert_eq!(result.err().and_then(|error| error.retry_after), class.and(wait), "{status}");
    }
    Ok(())
}

#[tokio::test]
async fn a_throttled_answer_that_the_caller_expects_is_told_all_the_same() -> TestResult {
    let server = answering_with_the_status_of_the_path().await?;
    let (feedback, listener) = Feedback::listening();
    let input = json!({"url": server.url("/429"), "expect_status": [429]});
    let output = call_with(&tool()?, &input, feedback).await?;
    assert_eq!(output["status"], 429);
    assert_eq!(listener.take().retry_after, Some(Duration::from_secs(7)));
    Ok(())
}

#[tokio::test]
async fn the_limits_of_another_host_are_not_those_of_the_service() -> TestResult {
    let other = answering_with_the_status_of_the_path().await?;
    let to = other.url("/429");
    let server = Server::start(move |request| {
        let to = if request.contains("/away") { to.as_str() } else { "/again" };
        let status = if request.contains("/again") { "200 OK" } else { "302 Found" };
        response(status, &format!("location: {to}\r\nx-ratelimit-limit: 5\r\n"), "")
    })
    .await?;
    let tool = tool()?;
    let five = Advertised { limit: Some(5.0), ..Advertised::of("requests") };
    for (path, requests) in [("/here", 2), ("/away", 3)] {
        let (feedback, listener) = Feedback::listening();
        let result = call_with(&tool, &json!({"url": server.url(path)}), feedback).await;
        assert_eq!(result.is_ok(), path == "/here");
        let heard = listener.take();
        assert_eq!((heard.advertised, heard.retry_after), (vec![five.clone()], None), "{path}");
        assert_eq!(server.requests().len(), requests, "{path}");
    }
    assert_eq!(other.requests().len(), 1);
    Ok(())
}

#[tokio::test]
async fn one_call_is_one_request_whatever_the_service_answers() -> TestResult {
    let server = answering_with_the_status_of_the_path().await?;
    let tool = tool()?;
    let mut calls = 0;
    for status in [200, 408, 409, 425, 429, 500, 502, 503, 504, 529] {
        for method in ["GET", "POST"] {
            let input = json!({"url": server.url(&format!("/{status}")), "method": method});
            assert_eq!(call(&tool, &input).await.is_ok(), status == 200);
            calls += 1;
            assert_eq!(server.requests().len(), calls, "{method} {status}");
        }
    }
    Ok(())
}
