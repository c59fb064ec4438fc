//! Variables of the environment under the names that deployments of workflow engines know (`WORKFLOW_ENGINE_MODE`, `MAX_WORKERS`, …),
//! with what each means here. `docs/modes.md` has the same table for people.
//!
//! They are the lowest layer of the environment. Unlike the short names they do not quietly give way to each other: two that
//! say different things are refused, because whoever set both expects both to hold.

use std::ffi::OsString;

use super::{node::Node, origin::Origin, problem::Problem, yaml};

/// The variables, each with the key that it sets; those without one take part in deciding another's.
pub const COMPATIBLE_NAMES: &[(&str, Option<&str>)] = &[
    ("WORKFLOW_ENGINE_MODE", Some(MODE)),
    ("ENABLE_WORKFLOW_OPTIMIZATION", None),
    ("ENABLE_HYBRID_EXECUTION", None),
    ("ENABLE_TIMEOUT_PROTECTION", None),
    ("MAX_WORKERS", Some("worker.max_parallel")),
    ("TIMEOUT_MS", Some("worker.timeout_ms")),
    ("MAX_WORKFLOW_DURATION_MS", Some(RUN_TIMEOUT)),
    ("MAX_CONCURRENT_EXECUTIONS", Some("scheduler.max_live_runs")),
    ("MAX_RETRY_ATTEMPTS", Some("worker.max_attempts")),
];

const MODE: &str = "scheduler.mode";
const RUN_TIMEOUT: &str = "scheduler.run_timeout_ms";
const MODES: [&str; 4] = ["classic", "state_machine", "optimized", "hybrid"];
/// How long a run may take where only the protection is asked for.
const PROTECTED_RUN_MS: u64 = 300_000;

/// One node for each variable that sets something.
pub(super) fn layers(environment: &[(OsString, OsString)], problems: &mut Vec<Problem>) -> Vec<Node> {
    let mut reader = Reader { environment, problems, layers: Vec::new() };
    reader.mode();
    reader.times();
    for name in ["MAX_WORKERS", "MAX_CONCURRENT_EXECUTIONS", "MAX_RETRY_ATTEMPTS"] {
        if let Some(number) = reader.number(name) {
            reader.set(name, &number.to_string());
        }
    }
    reader.layers
}

struct Reader<'a> {
    environment: &'a [(OsString, OsString)],
    problems: &'a mut Vec<Problem>,
    layers: Vec<Node>,
}

impl Reader<'_> {
    /// The trimmed text of a variable; an empty one counts as not set.
    fn text(&self, name: &str) -> Option<String> {
        let (_, value) = self.environment.iter().find(|(known, _)| known == name)?;
        let text = value.to_string_lossy().trim().to_owned();
        (!text.is_empty()).then_some(text)
    }

    fn refuse(&mut self, name: &str, message: String) {
        self.problems.push(Problem::new(Origin::Variable(name.into()), "", message));
    }

    fn switch(&mut self, name: &str) -> Option<bool> {
        let text = self.text(name)?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" | "on" => Some(true),
            "false" | "0" | "no" | "off" => Some(false),
            _ => {
                self.refuse(name, format!("`{text}` is neither true nor false"));
                None
            }
        }
    }

    fn number(&mut self, name: &str) -> Option<u64> {
        let text = self.text(name)?;
        let number = text.parse::<u64>().ok().filter(|number| *number > 0 && !text.starts_with('+'));
        if number.is_none() {
            self.refuse(name, format!("`{text}` is not a whole number above 0"));
        }
        number
    }

    /// Sets the key of a variable, unless another variable sets it to something else.
    fn set(&mut self, name: &str, value: &str) {
        let key = COMPATIBLE_NAMES.iter().find(|(known, _)| *known == name).and_then(|(_, key)| *key);
        if let Some(key) = key {
            self.set_key(name, key, value);
        }
    }

    fn set_key(&mut self, name: &str, key: &str, value: &str) {
        let nested = format!("TIDEMILL_{}", key.replace('.', "__").to_ascii_uppercase());
        if let Some(other) = self.text(&nested).filter(|other| !other.eq_ignore_ascii_case(value)) {
            let message =
                format!("it sets {key} to {value}, and {nested} sets it to {other}; leave one of them out");
            return self.refuse(name, message);
        }
        let path: Vec<String> = key.split('.').map(str::to_owned).collect();
        let origin = Origin::Variable(name.into());
        match yaml::inline(value, &origin) {
            Ok(leaf) => self.layers.push(Node::at(&path, leaf)),
            Err(message) => self.problems.push(Problem::new(origin, key, message)),
        }
    }

    /// The mode is named, or follows from what is enabled.
    fn mode(&mut self) {
        const OPTIMIZATION: &str = "ENABLE_WORKFLOW_OPTIMIZATION";
        const HYBRID: &str = "ENABLE_HYBRID_EXECUTION";
        let (optimization, hybrid) = (self.switch(OPTIMIZATION), self.switch(HYBRID));
        if let Some(text) = self.text("WORKFLOW_ENGINE_MODE") {
            let word = text.to_ascii_lowercase().replace('-', "_");
            if !MODES.contains(&word.as_str()) {
                let message = format!("there is no mode `{text}`; the modes are {}", MODES.join(", "));
                return self.refuse("WORKFLOW_ENGINE_MODE", message);
            }
            let optimizes = matches!(word.as_str(), "optimized" | "hybrid");
            self.agrees((OPTIMIZATION, optimization), optimizes, &word);
            self.agrees((HYBRID, hybrid), word == "hybrid", &word);
            return self.set("WORKFLOW_ENGINE_MODE", &word);
        }
        match (optimization, hybrid) {
            (Some(false), Some(true)) => {
                let message = format!(
                    "hybrid execution is the optimized one with steps side by side, and {OPTIMIZATION} is false; \
                     change one of them"
                );
                self.refuse(HYBRID, message);
            }
            (_, Some(true)) => self.set_key(HYBRID, MODE, "hybrid"),
            (Some(false), _) => self.set_key(OPTIMIZATION, MODE, "state_machine"),
            (_, Some(false)) => self.set_key(HYBRID, MODE, "optimized"),
            // the default does what is asked for
            (Some(true) | None, None) => {}
        }
    }

    fn agrees(&mut self, (name, given): (&str, Option<bool>), meant: bool, mode: &str) {
        if let Some(given) = given.filter(|given| *given != meant) {
            let message = format!(
                "it is {given}, and WORKFLOW_ENGINE_MODE is {mode}, which means {meant}; leave it out, or change the mode"
            );
            self.refuse(name, message);
        }
    }

    fn times(&mut self) {
        const PROTECTION: &str = "ENABLE_TIMEOUT_PROTECTION";
        let protection = self.switch(PROTECTION);
        let mut run = None;
        for name in ["TIMEOUT_MS", "MAX_WORKFLOW_DURATION_MS"] {
            let Some(number) = self.number(name) else { continue };
            if protection == Some(false) {
                let message = format!(
                    "it sets a bound of {number} ms, and {PROTECTION} is false; leave one of them out"
                );
                self.refuse(name, message);
            }
            if name == "MAX_WORKFLOW_DURATION_MS" {
                run = Some(number);
            }
            self.set(name, &number.to_string());
        }
        // a bound that is said elsewhere is more than the wish for some bound
        let nested = format!("TIDEMILL_{}", RUN_TIMEOUT.replace('.', "__").to_ascii_uppercase());
        if protection == Some(true) && run.is_none() && self.text(&nested).is_none() {
            self.set_key(PROTECTION, RUN_TIMEOUT, &PROTECTED_RUN_MS.to_string());
        }
    }
}

#[cfg(test)]
mod tests;
