//! A server that answers exactly what a test says, byte for byte, and notes what it was asked.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What a handler does with one connection's next request; `false` ends the connection.
pub(crate) type Answered<'a> = Pin<Box<dyn Future<Output = io::Result<bool>> + Send + 'a>>;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    requests: Vec<String>,
    connections: usize,
}

impl Server {
    /// Answers each request with what `answer` makes of it (head and body as text).
    pub(crate) async fn start(
        answer: impl Fn(String) -> Vec<u8> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let answer = Arc::new(answer);
        Self::start_raw(move |stream, request| {
            let bytes = answer(request);
            Box::pin(async move {
                stream.write_all(&bytes).await?;
                Ok(!bytes.is_empty())
            })
        })
        .await
    }

    /// Gives each request to a handler that does what it likes with the connection.
    pub(crate) async fn start_raw(
        handle: impl for<'a> Fn(&'a mut TcpStream, String) -> Answered<'a> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(Mutex::new(State::default()));
        let (handle, noted) = (Arc::new(handle), Arc::clone(&state));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (handle, noted) = (Arc::clone(&handle), Arc::clone(&noted));
                noted.lock().unwrap_or_else(PoisonError::into_inner).connections += 1;
                tokio::spawn(async move {
                    while let Ok(Some(request)) = read_request(&mut stream).await {
                        noted.lock().unwrap_or_else(PoisonError::into_inner).requests.push(request.clone());
                        match handle(&mut stream, request).await {
                            Ok(true) => {}
                            Ok(false) | Err(_) => break,
                        }
                    }
                });
            }
        });
        Ok(Self { address, state })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Everything that was asked, in order.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).requests.clone()
    }

    pub(crate) fn connections(&self) -> usize {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).connections
    }
}

/// A response with a body and the length that belongs to it.
pub(crate) fn response(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len()).into_bytes()
}

async fn read_request(stream: &mut TcpStream) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes);
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse::<usize>().ok()
            });
            if body.len() >= length.unwrap_or_default() {
                return Ok(Some(text.into_owned()));
            }
        }
        let mut chunk = [0; 4096];
        match stream.read(&mut chunk).await? {
            0 => return Ok(None),
            count => bytes.extend(chunk.iter().take(count)),
        }
    }
}
