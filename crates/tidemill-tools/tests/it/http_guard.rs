//! Attempts to make `http.request` call what it must not.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;
use tidemill_tool::Tool;
use tidemill_tools::HttpRequest;
use tidemill_tools::http::{Client, Resolve, Resolved, Settings};

use crate::server::{Server, response};
use crate::{TestResult, call, code_of};

/// Answers each look-up with the next of its lists, the last one for ever.
struct Flipping {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Resolve for Flipping {
    fn resolve(&self, _host: &str) -> Resolved {
        let turn = self.asked.fetch_add(1, Ordering::Relaxed).min(self.answers.len() - 1);
        let answer = self.answers.get(turn).cloned().ok_or_else(|| io::Error::other("no answer"));
        Box::pin(std::future::ready(answer))
    }
}

/// A tool, and the resolver that it asks.
type Resolving = (Arc<dyn Tool>, Arc<Flipping>);

fn tool_that_resolves(
    settings: Settings,
    answers: &[&[&str]],
) -> Result<Resolving, Box<dyn std::error::Error>> {
    let answers =
        answers.iter().map(|list| list.iter().map(|ip| ip.parse()).collect()).collect::<Result<_, _>>()?;
    let resolver = Arc::new(Flipping { answers, asked: AtomicUsize::new(0) });
    let client = Client::with_resolver(settings, Arc::clone(&resolver) as Arc<dyn Resolve>)?;
    Ok((Arc::new(HttpRequest::new(client)), resolver))
}

fn allowing(networks: &[&str]) -> Settings {
    Settings { allow_networks: networks.iter().map(|&text| text.to_owned()).collect(), ..Settings::default() }
}

#[tokio::test]
async fn addresses_in_every_spelling_are_refused_without_asking_anybody() -> TestResult {
    let server = Server::start(|_| response("200 OK", "", "reached")).await?;
    let port = server.address.port();
    let (tool, resolver) = tool_that_resolves(Settings::default(), &[&["127.0.0.1"]])?;
    for host in [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "0",
        "0.0.0.0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "169.254.169.254",
        "0xa9fea9fe",
        "2852039166",
        "[fd00:ec2::254]",
        "10.0.0.1",
        "192.168.0.1",
        "100.64.0.1",
        "①②⑦.⓪.⓪.①",
        "１２７.0.0.1",
    ] {
        let code = code_of(&tool, &json!({"url": format!("http://{host}:{port}/")})).await;
        assert_eq!(code, "address_refused", "{host}");
    }
    assert_eq!((server.requests().len(), server.connections()), (0, 0));
    assert_eq!(resolver.asked.load(Ordering::Relaxed), 0, "the resolver was asked for a written address");
    Ok(())
}

#[tokio::test]
async fn a_name_that_resolves_to_loopback_is_refused() -> TestResult {
    let server = Server::start(|_| response("200 OK", "", "reached")).await?;
    for answers in [&["127.0.0.1"][..], &["::1", "10.0.0.1", "fe80::1"], &["::ffff:127.0.0.1"]] {
        let (tool, _) = tool_that_resolves(Settings::default(), &[answers])?;
        let url = format!("http://rebind.example:{}/", server.address.port());
        let error = call(&tool, &json!({"url": url})).await.err().ok_or("no error")?;
        assert_eq!(error.code, "address_refused");
        assert!(!error.message.contains("127.0.0.1"), "the answer maps the network: {}", error.message);
    }
    assert_eq!(server.connections(), 0);
    Ok(())
}

#[tokio::test]
async fn a_name_that_resolves_differently_the_second_time_gains_nothing() -> TestResult {
    let server = Server::start(|_| response("200 OK", "connection: close\r\n", "reached")).await?;
    // First the permitted network of the test server, then another loopback address.
    let (tool, resolver) =
        tool_that_resolves(allowing(&["127.0.0.1/32"]), &[&["127.0.0.1"], &["127.0.0.2"]])?;
    let input = json!({"url": format!("http://rebind.example:{}/", server.address.port())});
    assert_eq!(call(&tool, &input).await?["body"], "reached");
    assert_eq!(code_of(&tool, &input).await, "address_refused");
    assert_eq!((server.connections(), resolver.asked.load(Ordering::Relaxed)), (1, 2));
    Ok(())
}

#[tokio::test]
async fn a_permitted_address_is_used_when_others_are_refused() -> TestResult {
    let server = Server::start(|_| response("200 OK", "", "reached")).await?;
    let (tool, _) = tool_that_resolves(allowing(&["127.0.0.1/32"]), &[&["10.0.0.1", "127.0.0.1", "::1"]])?;
    let url = format!("http://mixed.example:{}/", server.address.port());
    assert_eq!(call(&tool, &json!({"url": url})).await?["body"], "reached");
    Ok(())
}

#[tokio::test]
async fn redirects_to_what_may_not_be_called_are_refused() -> TestResult {
    let server = Server::start(|request| {
        let location =
            request.split("to=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default();
        response("302 Found", &format!("location: {location}\r\n"), "")
    })
    .await?;
    let (tool, _) = tool_that_resolves(allowing(&["127.0.0.1/32"]), &[&["10.0.0.1"]])?;
    for (location, code) in [
        ("http://169.254.169.254/latest/meta-data", "address_refused"),
        ("http://0xa9fea9fe/", "address_refused"),
        ("//127.0.0.2/", "address_refused"),
        ("http://private.example/", "address_refused"),
        ("file:///etc/passwd", "redirect_refused"),
        ("gopher://127.0.0.1:6379/_FLUSHALL", "redirect_refused"),
        ("http://user:pass@127.0.0.1/", "redirect_refused"),
    ] {
        assert_eq!(
            code_of(&tool, &json!({"url": server.url(&format!("/?to={location}"))})).await,
            code,
            "{location}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn redirects_are_followed_up_to_the_bound() -> TestResult {
    let server = Server::start(|request| match request.split(' ').nth(1) {
        Some("/loop") => response("307 Temporary Redirect", "location: /loop\r\n", ""),
        Some("/see") => response("303 See Other", "location: /end\r\n", ""),
        Some("/keep") => response("308 Permanent Redirect", "location: /end\r\n", ""),
        _ => response("200 OK", "", "end"),
    })
    .await?;
    let (tool, _) = tool_that_resolves(allowing(&["127.0.0.1/32"]), &[&[]])?;
    assert_eq!(code_of(&tool, &json!({"url": server.url("/loop")})).await, "too_many_redirects");
    assert_eq!(server.requests().len(), 6);
    assert_eq!(
        code_of(&tool, &json!({"url": server.url("/see"), "max_redirects": 0})).await,
        "too_many_redirects"
    );
    let seen = call(&tool, &json!({"url": server.url("/see"), "expect_status": [303]})).await?;
    assert_eq!(seen["headers"]["location"], "/end");
    call(&tool, &json!({"url": server.url("/see"), "text": "body"})).await?;
    let last = server.requests().pop().unwrap_or_default();
    assert!(
        last.starts_with("GET /end") && !last.contains("content-type") && last.ends_with("\r\n\r\n"),
        "{last}"
    );
    call(&tool, &json!({"url": server.url("/keep"), "text": "body"})).await?;
    let last = server.requests().pop().unwrap_or_default();
    assert!(last.starts_with("POST /end") && last.ends_with("\r\n\r\nbody"), "{last}");
    Ok(())
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_host() -> TestResult {
    let other = Server::start(|_| response("200 OK", "", "end")).await?;
    let target = other.url("/");
    let server = Server::start(move |request| {
        let location = if request.starts_with("GET /same") { "/end" } else { target.as_str() };
        if request.starts_with("GET /end") {
            response("200 OK", "", "end")
        } else {
            response("302 Found", &format!("location: {location}\r\n"), "")
        }
    })
    .await?;
    let (tool, _) = tool_that_resolves(allowing(&["127.0.0.1/32"]), &[&[]])?;
    let headers = json!({"Authorization": "Bearer canary", "Cookie": "canary", "X-Api-Key": "canary", "X-Plain": "plain"});
    call(&tool, &json!({"url": server.url("/other"), "headers": headers})).await?;
    let request = other.requests().pop().ok_or("the redirect was not followed")?;
    assert!(request.contains("x-plain: plain") && !request.contains("canary"), "{request}");
    call(&tool, &json!({"url": server.url("/same"), "headers": headers})).await?;
    let request = server.requests().pop().unwrap_or_default();
    assert!(request.starts_with("GET /end") && request.contains("Bearer canary"), "{request}");
    Ok(())
}

#[tokio::test]
async fn other_schemes_and_other_hosts_than_the_listed_are_refused() -> TestResult {
    let (tool, resolver) = tool_that_resolves(
        Settings { only_hosts: vec!["api.example.com".to_owned()], ..Settings::default() },
        &[&["10.0.0.1"]],
    )?;
    for url in ["file:///etc/passwd", "ftp://a/", "gopher://a/", "unix:/run/x", "data:text/plain,x"] {
        assert_eq!(code_of(&tool, &json!({"url": url})).await, "scheme_refused", "{url}");
    }
    assert_eq!(code_of(&tool, &json!({"url": "http://other.example.com/"})).await, "address_refused");
    assert_eq!(resolver.asked.load(Ordering::Relaxed), 0, "a host that may not be called was looked up");
    Ok(())
}
