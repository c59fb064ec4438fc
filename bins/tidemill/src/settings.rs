//! The whole settings file: every section of every program.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use tidemill_policy::service::{self, Definition};
use tidemill_runtime::settings::{Loaded, Problem};
use tidemill_runtime::{http, log, shutdown};
use tidemill_store::Store;

/// All settings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) redis: tidemill_store::Settings,
    pub(crate) namespace: String,
    pub(crate) partitions: u32,
    pub(crate) http: http::Settings,
    pub(crate) log: log::Settings,
    shutdown: shutdown::Settings,
    pub(crate) worker: tidemill_worker::Settings,
    pub(crate) scheduler: tidemill_scheduler::Settings,
    pub(crate) retention: tidemill_scheduler::RetentionSettings,
    pub(crate) cron: Vec<tidemill_store::Cron>,
    pub(crate) producer: tidemill_producer::Settings,
    /// What tools depend on: limits, breakers, caches.
    pub(crate) services: BTreeMap<String, Definition>,
    tools: BTreeMap<String, tidemill_tools::NamedTool>,
    exec: tidemill_tools::exec::Settings,
    http_request: tidemill_tools::http::Settings,
    template: tidemill_tools::template::Settings,
    jq: tidemill_tools::jq::Settings,
}

impl Default for Settings {
    fn default() -> Self {
        let tidemill_tools::Settings { tools, http_request, exec, template, jq } =
            tidemill_tools::Settings::default();
        Self {
            redis: tidemill_store::Settings::default(),
            namespace: "tm".to_owned(),
            partitions: 1,
            http: http::Settings::default(),
            log: log::Settings::default(),
            shutdown: shutdown::Settings::default(),
            worker: tidemill_worker::Settings::default(),
            scheduler: tidemill_scheduler::Settings::default(),
            retention: tidemill_scheduler::RetentionSettings::default(),
            cron: Vec::new(),
            producer: tidemill_producer::Settings::default(),
            services: BTreeMap::new(),
            tools,
            exec,
            http_request,
            template,
            jq,
        }
    }
}

impl Settings {
    /// What is said about tools.
    pub(crate) fn tools(&self) -> tidemill_tools::Settings {
        tidemill_tools::Settings {
            tools: self.tools.clone(),
            http_request: self.http_request.clone(),
            exec: self.exec.clone(),
            template: self.template.clone(),
            jq: self.jq.clone(),
        }
    }
}

/// What is wrong with the settings beyond their form.
pub(crate) fn check(loaded: &Loaded<Settings>) -> Vec<Problem> {
    let settings = &loaded.settings;
    let mut problems = Vec::new();
    if let Err(error) = settings.log.check() {
        problems.push(loaded.problem("log.level", error.to_string()));
    }
    if let Err(error) = Store::new(&settings.redis, &settings.namespace, settings.partitions) {
        problems.push(loaded.problem("redis", error.to_string()));
    }
    if let Err(error) = settings.worker.check() {
        problems.push(loaded.problem(&format!("worker.{}", error.key), error.problem));
    }
    for error in [settings.scheduler.check(), settings.retention.check()].into_iter().filter_map(Result::err)
    {
        problems.push(loaded.problem(&error.key, error.problem));
    }
    for (at, cron) in settings.cron.iter().enumerate() {
        if let Err(error) = tidemill_scheduler::Schedule::parse(&cron.schedule, &cron.time_zone) {
            problems.push(loaded.problem(&format!("cron[{at}]"), error.to_string()));
        }
    }
    for (key, message) in settings.producer.problems() {
        problems.push(loaded.problem(&format!("producer.{key}"), message));
    }
    problems.extend(
        service::check_all(&settings.services)
            .into_iter()
            .map(|found| loaded.problem(&format!("services.{}", found.path), found.message)),
    );
    if let Err(error) = tidemill_tools::builtin(&settings.tools()) {
        problems.push(loaded.problem("tools", error.to_string()));
    }
    problems
}
