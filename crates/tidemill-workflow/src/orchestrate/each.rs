//! One child for each item, so many at once.
//!
//! The memo holds counts and what is open only: items are stored by the first turn, each output when it is there.

use std::ops::Range;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Then;
use super::draft::{Draft, EndedChild, Look, fail, line};
use super::memo::{Actor, Memo};
use crate::expr::ExprError;
use crate::plan::{Child, ForEach, PlanStep};
use crate::scope::Scope;

/// Most children that one turn starts; what is left of the window follows at once.
const MOST_STARTS: u64 = 200;

/// See the module.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Each {
    /// How many items there are; unknown before the first look has stored them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    total: Option<u64>,
    /// The item that is started next.
    next: u64,
    ended: u64,
    failed: u64,
    /// How the first that failed did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first_failure: Option<String>,
}

/// The items that may be started at the next look.
pub(super) fn wanted(step: &PlanStep, memo: &[u8]) -> Range<u64> {
    let Some(for_each) = step.for_each.as_ref().filter(|_| step.is_orchestrated()) else { return 0..0 };
    match Memo::read(memo) {
        Ok(Memo { actor: Actor::Each(each), .. }) => {
            let most = MOST_STARTS.min(for_each.concurrency.max(1).into());
            each.next..each.next.saturating_add(most).min(each.total.unwrap_or(0)).max(each.next)
        }
        _ => 0..0,
    }
}

impl Each {
    pub(super) const fn new() -> Self {
        Self { total: None, next: 0, ended: 0, failed: 0, first_failure: None }
    }

    pub(super) fn look(
        &mut self,
        child: &Child,
        look: &Look<'_>,
        draft: &mut Draft,
    ) -> Result<Then, ExprError> {
        let Some(for_each) = &look.step.for_each else {
            return Ok(fail("memo_corrupt", "its memo has items that the step does not have".to_owned()));
        };
        let total = match self.total {
            Some(total) => total,
            None => {
                let items = for_each.items(look.scope, look.limits)?;
                let items: Vec<Bytes> =
                    items.into_iter().map(|item| Bytes::from(Box::<str>::from(item).into_string())).collect();
                let total = items.len() as u64;
                draft.items = Some(items);
                *self.total.insert(total)
            }
        };
        for ended in draft.ended(look.events) {
            self.take(&ended, look, draft);
        }
        let tolerated = for_each.tolerate.of(total);
        if self.failed <= tolerated
            && let Some(then) = self.fill(child, for_each, look, draft)?
        {
            return Ok(then);
        }
        if self.failed > tolerated {
            let Self { failed, next, .. } = self;
            let first = self.first_failure.as_deref().unwrap_or_default();
            let message =
                format!("{failed} of {next} items failed; {tolerated} may (for_each.tolerate); {first}");
            return Ok(fail("items_failed", message));
        }
        if self.ended == total && draft.wake_ms.is_none() {
            return Ok(Then::Gather { total });
        }
        let (ended, open) = (self.ended, draft.open.len());
        Ok(draft.waits(&format!("{ended} of {total} items have ended, {open} are under way")))
    }

    fn take(&mut self, ended: &EndedChild<'_>, look: &Look<'_>, draft: &mut Draft) {
        self.ended += 1;
        match ended.key.parse::<u64>() {
            Ok(item) if ended.succeeded() => {
                if let Some(output) = ended.output.filter(|output| !output.is_empty()) {
                    draft.keep.push((item, output.clone()));
                }
            }
            _ => self.fail(ended.key, &ended.note(&look.child_id(ended.key))),
        }
    }

    fn fail(&mut self, item: &str, why: &str) {
        self.failed += 1;
        self.first_failure.get_or_insert_with(|| line(&format!("first item {item}: {why}"), 200));
    }

    /// Starts as many as there is room for; gives how the step ends where it cannot go on.
    fn fill(
        &mut self,
        child: &Child,
        for_each: &ForEach,
        look: &Look<'_>,
        draft: &mut Draft,
    ) -> Result<Option<Then>, ExprError> {
        let (total, first) = (self.total.unwrap_or(0), self.next);
        let stored = draft.items.take();
        let item_text = |item: u64| match &stored {
            Some(items) => usize::try_from(item).ok().and_then(|at| items.get(at)),
            None => look.items.iter().find(|(at, _)| *at == item).map(|(_, text)| text),
        };
        let room = u64::from(for_each.concurrency.max(1));
        let mut then = None;
        while self.next < total
            && (draft.open.len() as u64) < room
            && self.next - first < MOST_STARTS.min(room)
        {
            let item = self.next;
            let Some(text) = item_text(item) else {
                then = Some(fail("lost_item", format!("item {item} is not in Redis any more")));
                break;
            };
            self.next += 1;
            self.start(child, (item, text), look, draft)?;
        }
        let is_full = draft.open.len() as u64 >= room;
        if child.detached && self.next > first || self.next < total && !is_full {
            // a turn that ends the step starts nothing; and what is left of the window follows at once
            draft.wake_at(look.now_ms);
        }
        draft.items = stored;
        Ok(then)
    }

    fn start(
        &mut self,
        child: &Child,
        (item, text): (u64, &Bytes),
        look: &Look<'_>,
        draft: &mut Draft,
    ) -> Result<(), ExprError> {
        let key = item.to_string();
        let own: [(&str, &[u8]); 2] = [("item", text), ("index", key.as_bytes())];
        let scope = Scope { item: Some((item, text)), ..look.scope_with(&own) };
        match look.step.with.render(&scope, look.limits) {
            Ok(input) => draft.start(look.request(child, key.clone(), input, &own)?),
            Err(error) if error.is_out_of_fuel() => return Err(error),
            Err(error) => {
                self.ended += 1;
                self.fail(&key, &error.to_string());
                return Ok(());
            }
        }
        if child.detached {
            self.ended += 1;
            draft.keep.push((item, Bytes::from(look.detached_output(&key))));
        }
        Ok(())
    }
}
