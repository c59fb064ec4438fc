//! Dead letters: what could not be done, with the reason and the original fields.

use redis::{Cmd, Value};
use serde::Serialize;

use crate::{Error, Partition, claims};

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Letter {
    /// Its own entry in the stream of dead letters.
    pub letter: String,
    /// Stable word: why.
    pub code: String,
    /// A sentence: why.
    pub reason: String,
    /// Where the work stood.
    pub stream: String,
    /// The work's first entry.
    pub entry: String,
    /// Attempts made.
    pub attempts: u32,
    /// When it died, in Unix milliseconds.
    pub at_ms: u64,
    /// The original fields, byte for byte.
    #[serde(skip)]
    pub fields: Vec<(String, Vec<u8>)>,
}

impl Letter {
    /// An original field as text; what is no UTF-8 is shown with replacement characters.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<String> {
        self.fields
            .iter()
            .find(|(field, _)| field == name)
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    }

    pub(crate) fn of(entry: claims::ClaimedEntry) -> Self {
        let mut letter = Self {
            letter: entry.entry.to_string(),
            code: String::new(),
            reason: String::new(),
            stream: String::new(),
            entry: String::new(),
            attempts: 0,
            at_ms: 0,
            fields: Vec::new(),
        };
        for (name, value) in entry.fields {
            let name = String::from_utf8_lossy(&name).into_owned();
            if let Some(field) = name.strip_prefix("job.") {
                letter.fields.push((field.to_owned(), value.to_vec()));
                continue;
            }
            let text = String::from_utf8_lossy(&value).into_owned();
            match name.as_str() {
                "code" => letter.code = text,
                "reason" => letter.reason = text,
                "stream" => letter.stream = text,
                "entry" => letter.entry = text,
                "attempts" => letter.attempts = text.parse().unwrap_or(0),
                "at_ms" => letter.at_ms = text.parse().unwrap_or(0),
                _ => {}
            }
        }
        letter
    }
}

impl Partition {
    /// Dead letters from after `after`, oldest first.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn letters(&self, after: Option<&str>, limit: usize) -> Result<Vec<Letter>, Error> {
        let from = after.map_or_else(|| "-".to_owned(), |after| format!("({after}"));
        let mut ask = Cmd::new();
        ask.arg("XRANGE").arg(self.keys().dead()).arg(from).arg("+").arg("COUNT").arg(limit);
        self.read_letters(&ask).await
    }

    /// One dead letter.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn letter(&self, letter: &str) -> Result<Option<Letter>, Error> {
        let mut ask = Cmd::new();
        ask.arg("XRANGE").arg(self.keys().dead()).arg(letter).arg(letter);
        Ok(self.read_letters(&ask).await?.into_iter().next())
    }

    async fn read_letters(&self, ask: &Cmd) -> Result<Vec<Letter>, Error> {
        let Value::Array(entries) = self.link().raw("reading dead letters", ask).await? else {
            return Ok(Vec::new());
        };
        entries.into_iter().map(|entry| claims::entry_of(entry).map(Letter::of)).collect()
    }

    /// How many dead letters there are.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn letter_count(&self) -> Result<u64, Error> {
        let mut ask = Cmd::new();
        ask.arg("XLEN").arg(self.keys().dead());
        self.link().query("counting dead letters", &ask).await
    }

    /// Drops a dead letter. `false`: it is not there.
    ///
    /// # Errors
    /// Redis is not reachable or refuses.
    pub async fn drop_letter(&self, letter: &str) -> Result<bool, Error> {
        let mut drop = Cmd::new();
        drop.arg("XDEL").arg(self.keys().dead()).arg(letter);
        self.link().query("dropping a dead letter", &drop).await
    }
}
