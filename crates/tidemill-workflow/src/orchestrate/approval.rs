//! Asking people, and after a rejection asking again about what was made of their feedback.
//!
//! Each question is one iteration. A decision counts for the question that stands open when it is looked at; the first of somebody who
//! may decide is the one that counts. What comes while nothing is asked, comes again, or comes from somebody who may not, changes nothing.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::draft::{Draft, Look, fail, line, time_out};
use super::memo::{raw, text};
use super::timer::shown;
use super::{Event, Then};
use crate::expr::ExprError;
use crate::plan::{Approval, OnReject, OnTimeout, Reminder};

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asking {
    /// The question that stands open, or the last one; from 1.
    iteration: u32,
    phase: Phase,
    /// What is to be approved: as it was found, or as it was revised last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    subject: Option<Box<RawValue>>,
    /// What the last rejection said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    feedback: Option<Box<RawValue>>,
    /// Reminders sent, over all questions.
    #[serde(default)]
    reminders: u32,
    /// The decisions that were taken: when and by whom. One of them that comes again is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    taken: Vec<(u64, String)>,
    /// Who decided without being asked, last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Phase {
    /// A question is to be asked.
    Before,
    /// It stands open.
    Asked { since_ms: u64, reminded_ms: u64, prompt: String },
    /// What is to be approved is made anew.
    Revising,
}

/// A decision that counts.
struct Decided<'e> {
    approve: bool,
    by: &'e str,
    feedback: &'e [u8],
    at_ms: u64,
}

/// Whether somebody of these roles may decide: where nobody is named anybody may, otherwise who is named or has a named role.
#[must_use]
pub fn may_decide(approval: &Approval, by: &str, roles: &[String]) -> bool {
    approval.who.is_empty() || approval.who.iter().any(|who| who == by || roles.contains(who))
}

/// A question that stands open.
#[derive(Debug, Clone)]
pub struct Question {
    /// From 1: of its iterations this one.
    pub iteration: u32,
    /// Since when, in Unix milliseconds.
    pub since_ms: u64,
    /// What is asked; empty where nothing was written.
    pub prompt: String,
    /// What is to be approved: JSON text.
    pub subject: Option<Box<RawValue>>,
}

impl Asking {
    /// The question that stands open, if one does.
    pub(super) fn question(self) -> Option<Question> {
        let Phase::Asked { since_ms, prompt, .. } = self.phase else { return None };
        Some(Question { iteration: self.iteration, since_ms, prompt, subject: self.subject })
    }

    pub(super) const fn new() -> Self {
        Self {
            iteration: 1,
            phase: Phase::Before,
            subject: None,
            feedback: None,
            reminders: 0,
            taken: Vec::new(),
            refused: None,
        }
    }

    pub(super) fn look(
        &mut self,
        approval: &Approval,
        look: &Look<'_>,
        draft: &mut Draft,
    ) -> Result<Then, ExprError> {
        if self.phase == Phase::Revising {
            let ended = draft.ended(look.events);
            let Some(ended) = ended.first() else { return Ok(self.revising(look, draft)) };
            if !ended.succeeded() {
                return Ok(ended.end(&look.child_id(ended.key)));
            }
            self.subject = Some(raw("the revision's output", ended.output())?);
            self.iteration = self.iteration.saturating_add(1);
            self.phase = Phase::Before;
        } else if self.phase != Phase::Before
            && let Some(decided) = self.decision(approval, look)
        {
            return self.decided(approval, &decided, look, draft);
        }
        if self.phase == Phase::Before {
            self.ask(approval, look)?;
        }
        self.asked(approval, look, draft)
    }

    fn ask(&mut self, approval: &Approval, look: &Look<'_>) -> Result<(), ExprError> {
        if let (None, Some(subject)) = (&self.subject, &approval.subject) {
            self.subject = Some(raw("what is to be approved", &look.render(subject, &[])?)?);
        }
        let prompt = match &approval.prompt {
            Some(prompt) => {
                let iteration = self.iteration.to_string();
                let rendered = look.render(prompt, &self.locals(&iteration))?;
                let value: Option<Value> = serde_json::from_slice(&rendered).ok();
                let told = value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
                line(&told.unwrap_or_default(), 200)
            }
            None => String::new(),
        };
        self.phase = Phase::Asked { since_ms: look.now_ms, reminded_ms: look.now_ms, prompt };
        Ok(())
    }

    /// The question stands open: its deadline, its reminders, and otherwise patience.
    fn asked(&mut self, approval: &Approval, look: &Look<'_>, draft: &mut Draft) -> Result<Then, ExprError> {
        let Phase::Asked { since_ms, reminded_ms, prompt } = self.phase.clone() else {
            return Ok(self.revising(look, draft));
        };
        let deadline_ms = approval.timeout_ms.map(|ms| since_ms.saturating_add(ms));
        if deadline_ms.is_some_and(|deadline_ms| look.now_ms >= deadline_ms) {
            return Ok(self.nobody_decided(approval));
        }
        let mut reminded_ms = reminded_ms;
        if let Some(remind) = &approval.remind {
            let every_ms = remind.every_ms.max(1);
            if look.now_ms >= reminded_ms.saturating_add(every_ms) {
                self.remind(remind, look, draft)?;
                // reminders that were missed are not made up for
                reminded_ms += (look.now_ms - reminded_ms) / every_ms * every_ms;
            }
            draft.wake_at(reminded_ms.saturating_add(every_ms));
        }
        if let Some(deadline_ms) = deadline_ms {
            draft.wake_at(deadline_ms);
        }
        let mut why = String::from("waits for approval");
        if !approval.who.is_empty() {
            why.push_str(&format!(" by {}", approval.who.join(", ")));
        }
        if approval.max_iterations > 1 && approval.on_reject == OnReject::Revise {
            why.push_str(&format!(" ({} of {})", self.iteration, approval.max_iterations));
        }
        if let Some(deadline_ms) = deadline_ms {
            why.push_str(&format!(" until {}", shown(deadline_ms)));
        }
        if let Some(refused) = &self.refused {
            why.push_str(&format!("; {refused}"));
        }
        if !prompt.is_empty() {
            why.push_str(&format!(": {prompt}"));
        }
        self.phase = Phase::Asked { since_ms, reminded_ms, prompt };
        Ok(draft.waits(&why))
    }

    fn remind(&mut self, remind: &Reminder, look: &Look<'_>, draft: &mut Draft) -> Result<(), ExprError> {
        self.reminders = self.reminders.saturating_add(1);
        let (key, iteration) = (format!("m{}", self.reminders), self.iteration.to_string());
        let input = crate::scope::text_or_null(look.scope.input).to_vec();
        let mut request = look.request(&remind.child, key, input, &self.locals(&iteration))?;
        request.detached = true;
        draft.start(request);
        Ok(())
    }

    /// The first decision that counts. Others are noted, or dropped.
    fn decision<'e>(&mut self, approval: &Approval, look: &Look<'e>) -> Option<Decided<'e>> {
        let mut decisions: Vec<_> = look
            .events
            .iter()
            .filter_map(|event| match event {
                Event::Decision { approve, by, roles, feedback, at_ms } => {
                    Some((Decided { approve: *approve, by, feedback, at_ms: *at_ms }, roles))
                }
                Event::Due { .. } | Event::Ended { .. } | Event::Signal { .. } | Event::Answered { .. } => {
                    None
                }
            })
            .filter(|(decided, _)| {
                !self.taken.iter().any(|(at_ms, by)| *at_ms == decided.at_ms && by == decided.by)
            })
            .collect();
        decisions.sort_by(|(a, _), (b, _)| (a.at_ms, a.by).cmp(&(b.at_ms, b.by)));
        for (decided, roles) in decisions {
            if may_decide(approval, decided.by, roles) {
                return Some(decided);
            }
            self.refused = Some(line(&format!("{} may not decide", decided.by), 80));
        }
        None
    }

    fn decided(
        &mut self,
        approval: &Approval,
        decided: &Decided<'_>,
        look: &Look<'_>,
        draft: &mut Draft,
    ) -> Result<Then, ExprError> {
        let feedback = raw("the feedback", decided.feedback)?;
        if decided.approve {
            return Ok(Then::End(self.output(true, Some(decided.by), Some(&feedback))));
        }
        let revise = approval.revise.as_ref().filter(|_| self.iteration < approval.max_iterations);
        match (approval.on_reject, revise) {
            (OnReject::Continue, _) => Ok(Then::End(self.output(false, Some(decided.by), Some(&feedback)))),
            (OnReject::Revise, Some(revise)) => {
                self.taken.push((decided.at_ms, decided.by.to_owned()));
                self.feedback = Some(feedback);
                self.refused = None;
                self.phase = Phase::Revising;
                let iteration = self.iteration.saturating_add(1).to_string();
                let input = crate::scope::text_or_null(look.scope.input).to_vec();
                let mut request = look.request(revise, self.revision(), input, &self.locals(&iteration))?;
                request.detached = false;
                draft.start(request);
                Ok(self.revising(look, draft))
            }
            (OnReject::Fail | OnReject::Revise, _) => {
                let (by, iteration) = (decided.by, self.iteration);
                let told =
                    if feedback.get() == "null" { String::new() } else { format!(": {}", feedback.get()) };
                let times =
                    if iteration > 1 { format!(", after {iteration} iterations") } else { String::new() };
                let message = line(&format!("was rejected by {by}{times}{told}"), 500);
                Ok(fail("approval_rejected", message))
            }
        }
    }

    /// Key of the run that the last rejection asked for.
    fn revision(&self) -> String {
        format!("r{}", self.iteration)
    }

    fn revising(&self, look: &Look<'_>, draft: &mut Draft) -> Then {
        let id = look.child_id(&self.revision());
        draft.waits(&format!("waits for run {id}, after the rejection of iteration {}", self.iteration))
    }

    fn nobody_decided(&self, approval: &Approval) -> Then {
        let limit_ms = approval.timeout_ms.unwrap_or_default();
        let message = format!("nobody decided within {limit_ms} ms");
        match (approval.on_timeout, approval.on_reject) {
            (OnTimeout::Fail, _) => time_out("approval_timeout", message),
            (OnTimeout::Approve, _) => Then::End(self.output(true, None, None)),
            (OnTimeout::Reject, OnReject::Continue) => Then::End(self.output(false, None, None)),
            (OnTimeout::Reject, OnReject::Fail | OnReject::Revise) => {
                fail("approval_rejected", format!("{message}, which counts as a rejection"))
            }
        }
    }

    fn output(&self, approved: bool, by: Option<&str>, feedback: Option<&RawValue>) -> Vec<u8> {
        let (by, feedback) = (Value::from(by), feedback.map_or("null", RawValue::get));
        let (iterations, subject) = (self.iteration, self.subject.as_deref().map_or("null", RawValue::get));
        format!("{{\"approved\":{approved},\"by\":{by},\"feedback\":{feedback},\"iterations\":{iterations},\"output\":{subject}}}")
            .into_bytes()
    }

    fn locals<'s>(&'s self, iteration: &'s str) -> [(&'s str, &'s [u8]); 3] {
        [
            ("iteration", iteration.as_bytes()),
            ("previous", text(self.subject.as_deref())),
            ("feedback", text(self.feedback.as_deref())),
        ]
    }
}
