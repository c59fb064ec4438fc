//! What the door knows of services: which job has which tiers.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tidemill_policy::service::{Backpressure, Catalog, Definition, Scope, TierRules, template_names};
use tidemill_store::{Error, Store};
use tidemill_workflow::{Filter, Limits};
use tokio::time::Instant;

use crate::intake::{Kind, Request};

/// How often it is asked which services tools name, while some service is guarded.
const TOOLS_FOR: Duration = Duration::from_secs(10);
/// Steps of jq spent on one expression.
const FUEL: u64 = 50_000;

/// The definitions of one generation.
#[derive(Debug)]
pub(super) struct Known {
    generation: u64,
    catalog: Catalog,
    rules: BTreeMap<String, TierRules>,
    filters: HashMap<String, Filters>,
    /// Tools that name their service by themselves, as workers announced them.
    named: HashMap<String, String>,
    read_at: Instant,
    /// Whether any service refuses jobs.
    guards: bool,
}

#[derive(Debug, Default)]
struct Filters {
    model: Option<Filter>,
    user: Option<Filter>,
    credential: Option<Filter>,
}

impl Filters {
    fn of(definition: &Definition) -> Self {
        let compiled = |text: &Option<String>| Filter::compile(text.as_deref()?).ok();
        Self {
            model: compiled(&definition.model),
            user: compiled(&definition.user),
            credential: compiled(&definition.credential),
        }
    }
}

impl Known {
    /// The definitions as they are now; `before` where nothing has changed.
    pub(super) async fn read(store: &Store, before: Option<Arc<Self>>) -> Result<Arc<Self>, Error> {
        let services = store.services();
        if let Some(before) = before
            && before.generation == services.generation().await?
            && !(before.guards && before.read_at.elapsed() > TOOLS_FOR)
        {
            return Ok(before);
        }
        let (read, texts) = tokio::try_join!(services.catalog(), services.rules())?;
        let guarded = read.catalog.services().filter(|(_, definition)| is_guarded(definition));
        let filters: HashMap<String, Filters> =
            guarded.map(|(name, definition)| (name.to_owned(), Filters::of(definition))).collect();
        let guards = !filters.is_empty();
        let named = if guards { named_services(store).await? } else { HashMap::new() };
        let rules = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name, TierRules::parse(&text).ok()?)))
            .collect();
        Ok(Arc::new(Self {
            generation: read.generation,
            catalog: read.catalog,
            rules,
            filters,
            named,
            read_at: Instant::now(),
            guards,
        }))
    }

    /// The job's service, if that may refuse it.
    pub(super) fn guarded_service<'k>(&'k self, request: &Request<'_>) -> Option<(&'k str, &'k Definition)> {
        let is_later = request.delay_ms.is_some() || request.run_at_ms.is_some();
        if !self.guards || request.kind != Kind::Job || is_later {
            return None;
        }
        let tool = plain(&request.target);
        let found = self.catalog.service_of(tool, self.named.get(tool).map(String::as_str));
        found.filter(|(_, definition)| is_guarded(definition))
    }

    /// The tiers that the job's call will pass.
    pub(super) fn tiers(&self, service: &str, request: &Request<'_>) -> Vec<Arc<str>> {
        let filters = self.filters.get(service);
        let input = request.input.as_deref().unwrap_or("{}");
        let text = |filter: Option<&Filter>| filter.and_then(|filter| text_of(filter, input));
        let model = text(filters.and_then(|filters| filters.model.as_ref()));
        let credential = text(filters.and_then(|filters| filters.credential.as_ref()));
        let user = text(filters.and_then(|filters| filters.user.as_ref()));
        let scope = Scope {
            tool: plain(&request.target),
            service: Some(service),
            tenant: request.tenant.as_deref(),
            user: user.as_deref().or(request.user.as_deref()),
            model: model.as_deref(),
            credential: credential.as_deref(),
        };
        self.catalog.tiers(&scope).into_iter().map(|tier| tier.name).collect()
    }

    /// The rules of a tier.
    pub(super) fn rules_of(&self, tier: &str) -> Option<&TierRules> {
        let (exact, any) = template_names(tier);
        self.rules.get(exact).or_else(|| self.rules.get(&any?))
    }
}

fn is_guarded(definition: &Definition) -> bool {
    definition.backpressure != Backpressure::Queue
}

fn plain(tool: &str) -> &str {
    tool.split_once('@').map_or(tool, |(name, _)| name)
}

async fn named_services(store: &Store) -> Result<HashMap<String, String>, Error> {
    #[derive(serde::Deserialize)]
    struct Announced {
        service: Option<String>,
    }
    let tools = store.home().tools().await?;
    let named = tools.into_iter().filter_map(|(tool, text)| {
        let announced: Announced = serde_json::from_str(&text).ok()?;
        Some((tool, announced.service?))
    });
    Ok(named.collect())
}

fn text_of(filter: &Filter, input: &str) -> Option<String> {
    let limits = Limits { output_bytes: 4_096, ..Limits::default() }.with_fuel(FUEL);
    let output = filter.run(input.as_bytes(), &limits).ok()?;
    match serde_json::from_slice(&output).ok()? {
        serde_json::Value::String(text) if !text.is_empty() => Some(text),
        serde_json::Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
