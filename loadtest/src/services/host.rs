//! Several workers in one process, for pools of more workers than a small machine bears processes.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use clap::Args;
use tidemill_runtime::health::Health;
use tidemill_runtime::http;
use tidemill_runtime::metrics::Metrics;
use tidemill_store::Store;
use tidemill_worker::{Settings, Worker};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a host of workers is told.
#[derive(Debug, Args)]
pub(crate) struct HostArguments {
    /// The Redis that all of them serve
    #[arg(long, env = "TIDEMILL_REDIS_URL")]
    redis_url: String,
    /// How many workers
    #[arg(long, default_value_t = 4)]
    workers: usize,
    /// How many tools each runs at once
    #[arg(long, default_value_t = 100)]
    max_parallel: usize,
}

/// Tools as a worker program has them, with this machine's own network allowed: there the referees are.
pub(super) fn tools() -> tidemill_tools::Settings {
    let mut settings = tidemill_tools::Settings::default();
    settings.http_request.allow_networks.push("127.0.0.0/8".to_owned());
    settings
}

/// Runs until it is killed; says where the metrics of each worker are to be had.
pub(crate) async fn host(arguments: HostArguments) -> Result<()> {
    let mut all = JoinSet::new();
    let mut addrs = BTreeSet::new();
    for _ in 0..arguments.workers {
        let settings = tidemill_store::Settings {
            url: arguments.redis_url.clone(),
            ..tidemill_store::Settings::default()
        };
        let (metrics, health) = (Metrics::new("loadtest", "0"), Health::new("loadtest", "0"));
        let registry = tidemill_tools::builtin(&tools()).map_err(anyhow::Error::msg)?;
        let settings_of_worker = Settings { max_parallel: arguments.max_parallel, ..Settings::default() };
        let store = Store::new(&settings, "tm", 1)?;
        store.check().await?;
        let worker = Worker::new(settings_of_worker, store, registry, (&metrics, &health))?;
        let any = http::Settings { addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)) };
        let (listener, addr) = http::bind(&any, true).await?;
        addrs.insert(addr.to_string());
        let token = CancellationToken::new();
        let router = http::admin_router(health, metrics);
        all.spawn({
            let token = token.clone();
            async move { http::serve(listener, router, token).await.context("serving metrics") }
        });
        all.spawn(async move { worker.run(token).await.context("a worker ended") });
    }
    let said = serde_json::json!({ "message": "workers started", "addrs": addrs });
    writeln!(std::io::stdout().lock(), "{said}").context("saying that the workers have started")?;
    while let Some(ended) = all.join_next().await {
        ended.context("a worker panicked")??;
    }
    Ok(())
}
