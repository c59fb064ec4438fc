//! Definitions as they are in force: read from Redis, and put there by people and by settings files.

use std::collections::BTreeMap;

use tidemill_policy::service::{Catalog, Definition, Problem};

use super::Services;
use crate::functions::Author;
use crate::{Control, Error};

/// The definitions of one generation.
#[derive(Debug, Clone, Default)]
pub struct CatalogRead {
    /// The generation; it grows with each change.
    pub generation: u64,
    /// What is valid of them.
    pub catalog: Catalog,
    /// Names of those that are left out, and why: they were written by other hands than ours, or by a newer version.
    pub left_out: Vec<(String, String)>,
}

/// Why a definition was not applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is not valid, by itself or beside the others.
    #[error("{}", sentences(.0))]
    Invalid(Vec<Problem>),
    /// Redis is not reachable or refuses.
    #[error(transparent)]
    Store(#[from] Error),
}

fn sentences(problems: &[Problem]) -> String {
    let each: Vec<String> = problems.iter().map(ToString::to_string).collect();
    each.join("; ")
}

impl Services {
    /// The definitions that are in force.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn catalog(&self) -> Result<CatalogRead, Error> {
        let (generation, texts) = self.definitions().await?;
        let (mut valid, mut left_out) = (BTreeMap::new(), Vec::new());
        for (name, text) in texts {
            match Definition::from_json(&text) {
                Ok(definition) => {
                    valid.insert(name, definition);
                }
                Err(error) => left_out.push((name, error.to_string())),
            }
        }
        loop {
            match Catalog::new(valid.clone()) {
                Ok(catalog) => return Ok(CatalogRead { generation, catalog, left_out }),
                Err(problems) => {
                    // what is wrong with one must not take the limits away from the others
                    let known = |problem: &&Problem| valid.contains_key(&problem.definition);
                    let Some(at) = problems.iter().find(known).map(|problem| problem.definition.clone())
                    else {
                        left_out.push(("*".to_owned(), sentences(&problems)));
                        return Ok(CatalogRead { generation, catalog: Catalog::default(), left_out });
                    };
                    valid.remove(&at);
                    left_out.push((at, sentences(&problems)));
                }
            }
        }
    }

    /// Sets a service's definition; `None` removes it. It is checked by itself and beside those in force. Replies whether
    /// anything changed.
    ///
    /// # Errors
    /// The definition is not valid, or Redis is not reachable or refuses.
    pub async fn apply(
        &self,
        author: Author<'_>,
        name: &str,
        definition: Option<&Definition>,
    ) -> Result<bool, ApplyError> {
        let Some(definition) = definition else { return Ok(self.define(author, name, "", &[]).await?) };
        self.check_beside([(name, definition)]).await?;
        self.set(author, name, definition).await
    }

    /// Checks definitions beside those in force.
    async fn check_beside<'a>(
        &self,
        new: impl IntoIterator<Item = (&'a str, &'a Definition)>,
    ) -> Result<(), ApplyError> {
        let (_, texts) = self.definitions().await?;
        let mut all: BTreeMap<String, Definition> = texts
            .into_iter()
            .filter_map(|(name, text)| Some((name, Definition::from_json(&text).ok()?)))
            .collect();
        all.extend(new.into_iter().map(|(name, definition)| (name.to_owned(), definition.clone())));
        Catalog::new(all).map(drop).map_err(ApplyError::Invalid)
    }

    async fn set(&self, author: Author<'_>, name: &str, definition: &Definition) -> Result<bool, ApplyError> {
        let text = serde_json::to_string(definition)
            .map_err(|error| Error::Corrupt(format!("the definition of {name} has no JSON form: {error}")))?;
        Ok(self.define(author, name, &text, &definition.templates(name)).await?)
    }

    /// Puts what a settings file says in force, where the file has changed since it was last put there. Replies the names that
    /// changed.
    ///
    /// # Errors
    /// A definition is not valid beside those in force, or Redis is not reachable or refuses.
    pub async fn seed(
        &self,
        who: &str,
        definitions: &BTreeMap<String, Definition>,
    ) -> Result<Vec<String>, ApplyError> {
        let author = Author { who, why: "the settings file says so", is_file: true };
        let mut changed = Vec::new();
        if !definitions.is_empty() {
            // together: one may fall back on another
            self.check_beside(definitions.iter().map(|(name, definition)| (name.as_str(), definition)))
                .await?;
        }
        for (name, definition) in definitions {
            if self.set(author, name, definition).await? {
                changed.push(name.clone());
            }
        }
        Ok(changed)
    }

    /// Pauses a tier until a Unix time in milliseconds, or for good.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn pause(&self, author: Author<'_>, tier: &str, until_ms: Option<u64>) -> Result<(), Error> {
        self.control(author, tier, Control::Pause(until_ms)).await.map(drop)
    }
}
