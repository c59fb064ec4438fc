//! A valid set of definitions, made ready for the question that each call asks: which tiers does it pass?

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::tier::{clean, template};
use super::{Definition, Problem, check_all};

/// What one call is, as far as limits are concerned.
#[derive(Debug, Clone, Copy, Default)]
pub struct Scope<'a> {
    /// The tool's name.
    pub tool: &'a str,
    /// The service it depends on, as [`Catalog::service_of`] says.
    pub service: Option<&'a str>,
    /// The job's tenant.
    pub tenant: Option<&'a str>,
    /// For whom it is called.
    pub user: Option<&'a str>,
    /// The model it calls.
    pub model: Option<&'a str>,
    /// The credential it uses.
    pub credential: Option<&'a str>,
}

/// One tier that a call passes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tier {
    /// Its name.
    pub name: Arc<str>,
    /// The template that holds its rules; often the same text.
    pub template: Arc<str>,
}

/// Templates of one kind: of single names, and of all others.
#[derive(Debug, Clone)]
struct Kind {
    prefix: String,
    named: HashMap<String, Arc<str>>,
    any: Option<Arc<str>>,
}

impl Kind {
    fn new(prefix: String) -> Self {
        Self { prefix, named: HashMap::new(), any: None }
    }

    fn add(&mut self, name: &str) {
        if name == "*" {
            self.any = Some(Arc::from(format!("{}*", self.prefix)));
        } else {
            let name = clean(name).into_owned();
            let tier = Arc::from(format!("{}{name}", self.prefix));
            self.named.insert(name, tier);
        }
    }

    fn is_empty(&self) -> bool {
        self.any.is_none() && self.named.is_empty()
    }

    fn tier(&self, name: Option<&str>) -> Option<Tier> {
        if self.is_empty() {
            return None;
        }
        let name: Cow<'_, str> = clean(name.filter(|name| !name.is_empty())?);
        if let Some(tier) = self.named.get(&*name) {
            return Some(Tier { name: Arc::clone(tier), template: Arc::clone(tier) });
        }
        let template = Arc::clone(self.any.as_ref()?);
        Some(Tier { name: Arc::from(format!("{}{name}", self.prefix)), template })
    }
}

#[derive(Debug, Clone)]
struct Service {
    name: Arc<str>,
    definition: Definition,
    tenants: Kind,
    users: Kind,
    models: Kind,
    credentials: Kind,
}

impl Service {
    fn new(name: &str, definition: Definition) -> Self {
        let [tenants, users, models, credentials] = definition.scopes().map(|(kind, scopes)| {
            let mut templates = Kind::new(format!("{name}/{kind}:"));
            for scope in scopes.keys() {
                templates.add(scope);
            }
            templates
        });
        Self { name: Arc::from(name), definition, tenants, users, models, credentials }
    }
}

/// A valid set of definitions. Cheap to ask; made anew when one changes.
#[derive(Debug, Clone)]
pub struct Catalog {
    services: HashMap<String, Service>,
    /// Tool → service.
    tools: HashMap<String, String>,
    /// Beginnings of tools' names → service, the longest first.
    beginnings: Vec<(String, String)>,
    pool: Option<Arc<str>>,
    of_tool: Kind,
    of_tenant: Kind,
    of_user: Kind,
}

impl Default for Catalog {
    fn default() -> Self {
        Self {
            services: HashMap::new(),
            tools: HashMap::new(),
            beginnings: Vec::new(),
            pool: None,
            of_tool: Kind::new("@tool:".to_owned()),
            of_tenant: Kind::new("@tenant:".to_owned()),
            of_user: Kind::new("@user:".to_owned()),
        }
    }
}

impl Catalog {
    /// Makes a catalog of definitions by name.
    ///
    /// # Errors
    /// All problems of all definitions, and those between them: a tool claimed by two services, a fallback to a service that
    /// does not exist.
    pub fn new(definitions: BTreeMap<String, Definition>) -> Result<Self, Vec<Problem>> {
        let problems = check_all(&definitions);
        if !problems.is_empty() {
            return Err(problems);
        }
        let mut catalog = Self::default();
        for (name, definition) in definitions {
            catalog.add(&name, definition);
        }
        catalog.beginnings.sort_by_key(|(beginning, _)| std::cmp::Reverse(beginning.len()));
        Ok(catalog)
    }

    fn add(&mut self, name: &str, definition: Definition) {
        match name.split_once(':') {
            Some(("@tool", tool)) => self.of_tool.add(tool),
            Some(("@tenant", tenant)) => self.of_tenant.add(tenant),
            Some(("@user", user)) => self.of_user.add(user),
            _ if name.starts_with('@') => self.pool = Some(Arc::from(template(name))),
            _ => {
                for tool in &definition.tools {
                    match tool.strip_suffix('*') {
                        Some(beginning) => self.beginnings.push((beginning.to_owned(), name.to_owned())),
                        None => {
                            self.tools.insert(tool.clone(), name.to_owned());
                        }
                    }
                }
                self.services.insert(name.to_owned(), Service::new(name, definition));
            }
        }
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.services.is_empty() && !self.limits_beyond_services()
    }

    fn limits_beyond_services(&self) -> bool {
        self.pool.is_some()
            || !(self.of_tool.is_empty() && self.of_tenant.is_empty() && self.of_user.is_empty())
    }

    /// A service by its name.
    #[must_use]
    pub fn get(&self, service: &str) -> Option<&Definition> {
        self.services.get(service).map(|service| &service.definition)
    }

    /// The services, in no order.
    pub fn services(&self) -> impl Iterator<Item = (&str, &Definition)> {
        self.services.values().map(|service| (&*service.name, &service.definition))
    }

    /// The service that a tool depends on. `named` is the one that the tool's own settings name: it decides, and if it does
    /// not exist the answer is `None`; [`Catalog::get`] tells the two apart.
    #[must_use]
    pub fn service_of(&self, tool: &str, named: Option<&str>) -> Option<(&str, &Definition)> {
        let name = named.or_else(|| {
            let longest = || self.beginnings.iter().find(|(beginning, _)| tool.starts_with(beginning));
            self.tools.get(tool).or_else(|| longest().map(|(_, service)| service)).map(String::as_str)
        })?;
        self.services.get(name).map(|service| (&*service.name, &service.definition))
    }

    /// Whether any limit may concern calls of this tool.
    #[must_use]
    pub fn affects(&self, tool: &str, named: Option<&str>) -> bool {
        self.pool.is_some()
            || !self.of_tenant.is_empty()
            || !self.of_user.is_empty()
            || self.of_tool.tier(Some(tool)).is_some()
            || self.service_of(tool, named).is_some()
    }

    /// The tiers that a call passes, the narrowest last; only those that have rules.
    #[must_use]
    pub fn tiers(&self, scope: &Scope<'_>) -> Vec<Tier> {
        let mut tiers = Vec::with_capacity(4);
        tiers.extend(self.pool.as_ref().map(whole));
        tiers.extend(self.of_tool.tier(Some(scope.tool)));
        tiers.extend(self.of_tenant.tier(scope.tenant));
        tiers.extend(self.of_user.tier(scope.user));
        if let Some(service) = scope.service.and_then(|name| self.services.get(name)) {
            tiers.push(whole(&service.name));
            tiers.extend(service.tenants.tier(scope.tenant));
            tiers.extend(service.users.tier(scope.user));
            tiers.extend(service.models.tier(scope.model));
            tiers.extend(service.credentials.tier(scope.credential));
        }
        tiers
    }
}

fn whole(name: &Arc<str>) -> Tier {
    Tier { name: Arc::clone(name), template: Arc::clone(name) }
}
