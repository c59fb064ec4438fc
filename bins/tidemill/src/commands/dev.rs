//! `tidemill dev`: everything in one process, with a private Redis.

mod engines;
mod redis;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidemill_runtime::exit::Exit;
use tidemill_runtime::program::{self, Failure};
use tidemill_runtime::settings::{Loaded, Sources};
use tidemill_runtime::tasks::Tasks;
use tidemill_runtime::{http, log};
use tidemill_store::{Store, redact_url};

use self::redis::Server;
use crate::output::Output;
use crate::settings::Settings;

/// Run everything in one process: worker, scheduler and producer, with a private Redis
///
/// The Redis is a redis-server found on PATH. It keeps an append-only file in a folder of its own, so work survives a restart; it
/// listens on a free port of 127.0.0.1 and ends with this process. With --redis-url (or TIDEMILL_REDIS_URL) none is started, and that
/// one is used. Ctrl-C or SIGTERM drains the worker and ends everything; a second signal ends it at once.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  tidemill dev
  tidemill dev --dir /tmp/tide --http-addr 127.0.0.1:0
  tidemill dev --config tidemill.yaml --set worker.queues=critical=6,default=3")]
pub(crate) struct Arguments {
    /// Folder of the private Redis
    #[arg(long, value_name = "DIR", default_value = "./tidemill-data")]
    dir: PathBuf,
    /// Port of the private Redis; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    redis_port: u16,
    /// The redis-server (or valkey-server) to start
    #[arg(long, value_name = "PROGRAM", default_value = "redis-server")]
    redis_server: PathBuf,
}

/// What a worker may need beyond its own grace.
const LAST_RESORT: Duration = Duration::from_secs(10);

pub(crate) fn run(arguments: &Arguments, sources: &Sources, output: Output) -> Exit {
    let loaded = match super::load(sources) {
        Ok(loaded) => loaded,
        Err(error) => return error.tell(output.is_json()),
    };
    let server = Arc::new(Server::default());
    let exit = program::run("tidemill dev", None, |tasks| {
        Box::pin(start(arguments, loaded, (tasks, Arc::clone(&server)), output))
    });
    // whatever way it ended: the child must not stay
    server.end_now();
    exit
}

async fn start(
    arguments: &Arguments,
    loaded: Loaded<Settings>,
    (tasks, server): (Tasks, Arc<Server>),
    output: Output,
) -> Result<Duration, Failure> {
    let given = (loaded.is_given("redis.url"), loaded.is_given("http.addr"));
    let mut settings = loaded.settings;
    log::init(&settings.log).map_err(|error| Failure::new(Exit::Settings, error))?;
    let refused = |error: tidemill_store::Error| Failure::new(Exit::Settings, error);
    if !given.0 {
        settings.redis.url = server.start(arguments, &tasks)?;
    }
    let store = Store::new(&settings.redis, &settings.namespace, settings.partitions).map_err(refused)?;
    await_redis(&store, &server).await?;
    let listener = http::bind(&settings.http, given.1).await;
    let (listener, addr) = listener.map_err(|error| Failure::new(Exit::Failed, error))?;
    let grace = Duration::from_millis(settings.worker.grace_ms) + LAST_RESORT;
    let words = greeting(&settings, arguments, (&store, !given.0), addr);
    let queues = settings.worker.queues.clone();
    Box::pin(engines::start(settings, store, &tasks, listener)).await?;
    if output.is_json() {
        output.document(&words.1);
    } else {
        output.text(&words.0);
    }
    tracing::debug!(queues, "everything runs");
    Ok(grace)
}

/// A server that reads its file answers later; one that is not there never does.
async fn await_redis(store: &Store, server: &Server) -> Result<(), Failure> {
    let ready = async {
        loop {
            match store.check().await {
                Ok(_) => return Ok(()),
                Err(error) if error.is_transient() && server.is_running() => {
                    tracing::debug!(%error, "redis is not ready yet");
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                Err(error) => {
                    let url = redact_url(&store.settings().url);
                    return Err(Failure::new(
                        Exit::Redis,
                        format_args!("cannot use Redis at {url}: {error}"),
                    ));
                }
            }
        }
    };
    tokio::time::timeout(redis::START, ready).await.unwrap_or_else(|_| {
        Err(Failure::new(
            Exit::Redis,
            format_args!("the private Redis did not answer within {:?}", redis::START),
        ))
    })
}

fn greeting(
    settings: &Settings,
    arguments: &Arguments,
    (store, private): (&Store, bool),
    addr: std::net::SocketAddr,
) -> (String, serde_json::Value) {
    let (url, key) = (redact_url(&settings.redis.url), store.home().keys().jobs("default"));
    let place =
        if private { format!("  (append-only file in {})", arguments.dir.display()) } else { String::new() };
    let cli = match settings.redis.url.rsplit_once(':').filter(|_| private) {
        Some((_, port)) => format!("redis-cli -p {}", port.trim_end_matches("/0")),
        None => format!("redis-cli -u {url}"),
    };
    let queues = &settings.worker.queues;
    let text = format!(
        "Tidemill {version} runs: worker (queues {queues}; {slots} slots), scheduler, producer\n  \
           HTTP   http://{addr}\n  \
           Redis  {url}{place}\n\n\
         In another shell:\n  \
           export TIDEMILL_REDIS_URL={url}\n  \
           tidemill enqueue echo --input '{{\"hello\":\"tide\"}}' --wait\n  \
           {cli} XADD '{key}' '*' tool echo input '{{\"hello\":\"tide\"}}'\n\n\
         Ctrl-C ends it.\n",
        version = env!("CARGO_PKG_VERSION"),
        slots = settings.worker.max_parallel,
    );
    let document = serde_json::json!({
        "http": format!("http://{addr}"), "redis": url, "private_redis": private, "pid": std::process::id(),
    });
    (text, document)
}
