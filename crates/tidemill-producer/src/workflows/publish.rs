//! Checking a definition as a whole, and publishing it.

use tidemill_serverless::Document;
use tidemill_store::{Publication, Published, Publishing, VersionState};
use tidemill_workflow::{AnyTool, Definition, Plan};

use super::{KnownTools, Workflows, refused};
use crate::refusal::{Code, Refusal};

/// A definition that is to be published, and how.
#[derive(Debug, Clone, Copy)]
pub struct Publish<'a> {
    /// The definition.
    pub text: &'a str,
    /// The file's name, for the places of problems.
    pub file: &'a str,
    /// Let unknown tools pass.
    pub any_tool: bool,
    /// As a draft, instead of as an active version.
    pub draft: bool,
    /// Refuse it unless every live run of its other versions would also be possible under it.
    pub require_compatible: bool,
    /// Who publishes it, for the audit.
    pub who: &'a str,
    /// Why.
    pub why: &'a str,
}

/// A definition that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublishedAs {
    /// The workflow's name.
    pub name: String,
    /// The version, given or assigned.
    pub version: u32,
    /// Its number of steps.
    pub steps: usize,
    /// Where it stands in its life now.
    pub state: VersionState,
    /// Whether the version is new; `false` when the same text was published before.
    pub new: bool,
}

/// A definition that was checked and found good.
#[derive(Debug)]
pub struct Checked {
    /// Its version, where its text says one.
    pub version: Option<u32>,
    /// The definition, if it is one of Tidemill's own language.
    pub definition: Option<Definition>,
    /// Its plan.
    pub plan: Plan,
}

/// How often a publisher tries for the next version when others take it.
const TRIES: u32 = 10;

impl Workflows {
    /// Checks a definition as a whole, against the tools that workers have announced and those that are built in.
    /// With `any_tool`, unknown tools are let pass.
    ///
    /// # Errors
    /// All problems of the definition; or Redis is not available.
    pub async fn check(&self, text: &str, file: &str, any_tool: bool) -> Result<Checked, Refusal> {
        let plan = if any_tool {
            tidemill_serverless::plan(text, file, &AnyTool)
        } else {
            let tools = KnownTools::new(self.store.home().tools().await?);
            tidemill_serverless::plan(text, file, &tools)
        };
        let plan = plan.map_err(|problems| refused(&problems))?;
        if tidemill_serverless::is_document(text) {
            let document = Document::parse(text, file, &AnyTool).map_err(|problems| refused(&problems))?;
            return Ok(Checked { version: document.version_number(), definition: None, plan });
        }
        let definition = Definition::parse(text, file).map_err(|problems| refused(&problems))?;
        Ok(Checked { version: definition.version, definition: Some(definition), plan })
    }

    /// Publishes a definition. One without a version becomes the next version, unless it is the same as the newest.
    ///
    /// # Errors
    /// All problems of the definition; live runs that do not fit it, where that is asked for; its version is published with another
    /// text; or Redis is not available.
    pub async fn publish(&self, wanted: &Publish<'_>) -> Result<PublishedAs, Refusal> {
        let checked = self.check(wanted.text, wanted.file, wanted.any_tool).await?;
        if wanted.require_compatible {
            self.against_runs(&checked).await?.require(&checked.plan.name)?;
        }
        let published = match checked.version {
            Some(version) => self.publish_numbered(wanted, &checked, version).await,
            None => self.publish_next(wanted, &checked).await,
        };
        self.forget_starts();
        published
    }

    async fn publish_numbered(
        &self,
        wanted: &Publish<'_>,
        checked: &Checked,
        version: u32,
    ) -> Result<PublishedAs, Refusal> {
        let name = &checked.plan.name;
        let (state, new) = match self.send(wanted, name, version, wanted.text).await? {
            Publishing::New => (state_of(wanted), true),
            Publishing::Before(state) => (state, false),
            Publishing::Taken => {
                return Err(Refusal::new(
                    Code::VersionTaken,
                    format!(
                        "{name}@{version} is published with another text, which never changes; raise the version, or leave it out to get the next one"
                    ),
                ));
            }
        };
        Ok(PublishedAs { name: name.clone(), version, steps: checked.plan.steps.len(), state, new })
    }

    async fn publish_next(&self, wanted: &Publish<'_>, checked: &Checked) -> Result<PublishedAs, Refusal> {
        let (home, name) = (self.store.home(), &checked.plan.name);
        let answer = |version, state, new| PublishedAs {
            name: name.clone(),
            version,
            steps: checked.plan.steps.len(),
            state,
            new,
        };
        // another publisher may take the next version at the same time
        for _ in 0..TRIES {
            let newest = home.versions(name).await?.pop();
            // an archived one cannot come back: the same text begins anew
            if let Some(newest) = newest.as_ref().filter(|newest| newest.state != VersionState::Archived)
                && let Some(stored) = home.definition(name, Some(newest.version)).await?
                && is_same(wanted, checked, &stored)
            {
                return Ok(answer(newest.version, newest.state, false));
            }
            let version = newest.map_or(1, |newest| newest.version + 1);
            let text = checked.definition.clone().map_or_else(
                || wanted.text.to_owned(),
                |mut numbered| {
                    numbered.version = Some(version);
                    numbered.to_value().to_string()
                },
            );
            if self.send(wanted, name, version, &text).await? == Publishing::New {
                return Ok(answer(version, state_of(wanted), true));
            }
        }
        let detail = format!("others publish {name:?} at the same time; try again");
        Err(Refusal::new(Code::VersionTaken, detail))
    }

    async fn send(
        &self,
        wanted: &Publish<'_>,
        name: &str,
        version: u32,
        source: &str,
    ) -> Result<Publishing, Refusal> {
        let (state, who, why) = (state_of(wanted), wanted.who, wanted.why);
        let publication = Publication { name, version, source, state, who, why };
        Ok(self.store.home().publish_as(&publication).await?)
    }
}

const fn state_of(wanted: &Publish<'_>) -> VersionState {
    if wanted.draft { VersionState::Draft } else { VersionState::Active }
}

/// Whether this is published already, as a version without a number of its own.
fn is_same(wanted: &Publish<'_>, checked: &Checked, stored: &Published) -> bool {
    match &checked.definition {
        Some(definition) => same_but_version(definition, stored),
        None => stored.source == wanted.text,
    }
}

fn same_but_version(definition: &Definition, stored: &Published) -> bool {
    let Ok(mut stored) = Definition::parse(&stored.source, "") else { return false };
    stored.version = None;
    stored == *definition
}
