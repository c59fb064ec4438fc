//! A producer of the test's own on a server of its own, and a plain HTTP client.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::HeaderMap;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tidemill_producer::{Around, Intake, Settings, spawn};
use tidemill_runtime::health::Health;
use tidemill_runtime::metrics::{DutyMetrics, Metrics};
use tidemill_runtime::tasks::Tasks;
use tidemill_store::{Partition, Store};
use tidemill_testkit::RedisServer;
use tokio::net::{TcpListener, TcpStream};

pub(crate) struct Door {
    pub(crate) server: RedisServer,
    pub(crate) store: Store,
    pub(crate) intake: Intake,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Metrics,
    pub(crate) port: u16,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The lines of a batch's answer.
    pub(crate) fn lines(&self) -> Vec<Value> {
        self.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Checks that this is a problem document with that status and code, and gives its detail.
    pub(crate) fn problem(&self, status: u16, code: &str) -> String {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.body);
        let document = self.json();
        assert_eq!(document["code"], code, "{document}");
        assert_eq!(document["status"], status, "{document}");
        assert_eq!(document["type"], format!("urn:tidemill:problem:{code}"));
        for member in ["title", "detail", "instance"] {
            assert!(document[member].as_str().is_some_and(|text| !text.is_empty()), "{member}: {document}");
        }
        document["detail"].as_str().unwrap().to_owned()
    }
}

impl Door {
    pub(crate) async fn open() -> Self {
        Self::with(Settings::default(), 1).await
    }

    pub(crate) async fn with(settings: Settings, partitions: u32) -> Self {
        let server = RedisServer::start().await.unwrap();
        Self::on(server, settings, partitions).await
    }

    pub(crate) async fn on(server: RedisServer, settings: Settings, partitions: u32) -> Self {
        let url = server.url();
        Self::at(server, &url, settings, partitions).await
    }

    pub(crate) async fn at(server: RedisServer, url: &str, settings: Settings, partitions: u32) -> Self {
        let redis = tidemill_store::Settings { url: url.to_owned(), ..tidemill_store::Settings::default() };
        let store = Store::new(&redis, "tm", partitions).unwrap();
        store.check().await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let metrics = Metrics::new("producer", "test");
        let around = Around {
            tasks: Tasks::new(),
            health: Health::new("producer", "test"),
            duties: Arc::new(DutyMetrics::new(&metrics)),
            metrics: metrics.clone(),
        };
        let intake = spawn(settings, store.clone(), &around, listener);
        Self { server, store, intake, tasks: around.tasks, metrics, port }
    }

    pub(crate) fn home(&self) -> &Partition {
        self.store.home()
    }

    pub(crate) async fn cli(&self, words: &[&str]) -> String {
        self.server.cli(words).await.unwrap().trim().to_owned()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send("POST", path, &[], body.to_owned()).await
    }

    pub(crate) async fn batch(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.send("POST", path, &[("content-type", "application/x-ndjson")], body).await
    }

    pub(crate) async fn publish(&self, yaml: &str) -> Answer {
        self.send("PUT", "/v1/workflows", &[("content-type", "application/yaml")], yaml.to_owned()).await
    }

    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        let mut request = hyper::Request::builder().method(method).uri(path).header("host", "test");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        // the sender goes with the exchange, and the connection ends without it
        let exchange = async move {
            let response = sender.send_request(request).await.unwrap();
            let (head, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer {
                status: head.status.as_u16(),
                headers: head.headers,
                body: String::from_utf8(body.to_vec()).unwrap(),
            }
        };
        let both = async { tokio::join!(exchange, connection).0 };
        tokio::time::timeout(Duration::from_secs(30), both).await.unwrap()
    }

    /// Writes bytes to a fresh connection and reads until it ends.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }
}
