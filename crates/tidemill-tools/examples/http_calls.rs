//! How much memory and time concurrent calls of `http.request` cost.
//!
//! `http_calls serve` answers each request after 100 ms and prints its address; `http_calls <address> [concurrent] [seconds]`
//! calls it from one thread and prints calls per second, latencies, and the memory and processor time of the process (Linux).
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a program to measure with: its tasks end with it, and it prints what it found"
)]

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tidemill_tool::{Call, Context, Payload, Tool};
use tidemill_tools::HttpRequest;
use tidemill_tools::http::{Client, Settings};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nserver: example\r\ncontent-type: application/json\r\n\
    date: Sat, 21 Nov 2026 12:00:00 GMT\r\nx-request-id: 0123456789\r\ncontent-length: 27\r\n\r\n{\"state\": \"held\", \"n\": 42} ";

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match arguments.next().as_deref() {
        None => Err("give `serve`, or the address of a server".into()),
        Some("serve") => runtime.block_on(serve()).map_err(Failure::from),
        Some(address) => {
            let concurrent = arguments.next().map_or(Ok(1_000), |text| text.parse())?;
            let seconds = arguments.next().map_or(Ok(5), |text| text.parse())?;
            runtime.block_on(measure(address, concurrent, Duration::from_secs(seconds)))
        }
    }
}

async fn serve() -> io::Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(answer(stream));
    }
}

async fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut request = [0; 2048];
    while stream.read(&mut request).await? > 0 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        stream.write_all(ANSWER).await?;
    }
    Ok(())
}

async fn measure(address: &str, concurrent: usize, duration: Duration) -> Result<(), Failure> {
    let settings = Settings { allow_networks: vec!["127.0.0.0/8".to_owned()], ..Settings::default() };
    let tool: Arc<dyn Tool> = Arc::new(HttpRequest::new(Client::new(settings)?));
    let input = Payload::json(
        json!({"method": "POST", "url": format!("http://{address}/orders/42"), "json": {"state": "held"}})
            .to_string(),
    );
    println!("before: {}", resident()?);
    let begin = Arc::new(tokio::sync::Barrier::new(concurrent + 1));
    let callers: Vec<_> = (0..concurrent)
        .map(|index| {
            let (tool, input, begin) = (Arc::clone(&tool), input.clone(), Arc::clone(&begin));
            tokio::spawn(async move {
                let context = Context { id: format!("job-{index}").into(), attempt: 1, ..Context::default() };
                let call = Call { input, context };
                // Connects; how long that takes is not the matter here.
                let first = Arc::clone(&tool).call(call.clone()).await;
                begin.wait().await;
                first?;
                let end = Instant::now() + duration;
                let mut latencies = Vec::new();
                while Instant::now() < end {
                    let start = Instant::now();
                    Arc::clone(&tool).call(call.clone()).await?;
                    latencies.push(u32::try_from(start.elapsed().as_micros())?);
                }
                Ok::<_, Failure>(latencies)
            })
        })
        .collect();
    begin.wait().await;
    println!("connected: {}", resident()?);
    let start = Instant::now();
    let mut latencies = Vec::new();
    for caller in callers {
        latencies.extend(caller.await??);
    }
    latencies.sort_unstable();
    let at = |share: usize| {
        latencies.get((latencies.len().saturating_sub(1)) * share / 100).copied().unwrap_or_default()
    };
    println!(
        "{} calls at {concurrent} at once: {:.0} calls/s; latency in µs: median {}, 99 % {}, most {}",
        latencies.len(),
        latencies.len() as f64 / start.elapsed().as_secs_f64(),
        at(50),
        at(99),
        at(100),
    );
    println!("after: {}", resident()?);
    Ok(())
}

/// Largest and present resident memory, and processor time so far in clock ticks.
fn resident() -> io::Result<String> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let memory: Vec<_> =
        status.lines().filter(|line| line.starts_with("VmHWM") || line.starts_with("VmRSS")).collect();
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let ticks: Vec<_> = stat.split(' ').skip(13).take(2).collect();
    Ok(format!("{}; ticks in user and system {}", memory.join(", "), ticks.join(" and ")).replace('\t', " "))
}
