//! One look at a waiting step: memo read, its kind asked, the turn made whole.

use super::approval::Asking;
use super::callback::Callback;
use super::child::Awaiting;
use super::draft::{Draft, Look, fail, time_out};
use super::each::Each;
use super::memo::{Actor, Memo};
use super::race::Race;
use super::repeat::Looping;
use super::signal::Listening;
use super::timer::Timer;
use super::{Event, Moment, Then, Turn};
use crate::expr::ExprError;
use crate::plan::{Action, PlanStep, Wait};

pub(super) fn advance(step: &PlanStep, moment: &Moment<'_>) -> Result<Turn, ExprError> {
    if let Action::Program(program) = &step.action {
        return program.advance(moment);
    }
    let Some(text) = moment.memo else { return begin(step, moment, 0) };
    if let Some(round) = super::begins_anew(text) {
        return begin(step, moment, round);
    }
    let mut memo = match Memo::read(text) {
        Ok(memo) => memo,
        Err(then) => return Ok(Turn { cancel: super::open_children(text), ..Turn::then(then) }),
    };
    let is_due = memo.alarm.is_some_and(|alarm| {
        moment
            .events
            .iter()
            .any(|event| matches!(event, Event::Due { generation } if *generation == alarm.generation))
    });
    let due_ms = memo.alarm.filter(|_| is_due).map_or(0, |alarm| alarm.at_ms);
    let look = Look::new(step, moment, (moment.now_ms.max(due_ms), memo.round));
    let mut draft = Draft { open: std::mem::take(&mut memo.open), round: memo.round, ..Draft::default() };
    let then = memo.actor.look(&look, &mut draft)?;
    if is_due {
        memo.alarm = None;
    }
    finish(memo, draft, &look, then)
}

fn begin(step: &PlanStep, moment: &Moment<'_>, round: u32) -> Result<Turn, ExprError> {
    let look = Look::new(step, moment, (moment.now_ms, round));
    let mut draft = Draft { round, ..Draft::default() };
    let (actor, then) = match Actor::begin(&look, &mut draft)? {
        Ok(begun) => begun,
        Err(then) => return Ok(Turn::then(then)),
    };
    let deadline_ms =
        step.timeout_ms.filter(|_| !calls_tool(step)).map(|ms| moment.now_ms.saturating_add(ms));
    finish(Memo::new(actor, round, deadline_ms), draft, &look, then)
}

/// Of a step that calls its own tool the timeout is that of the call.
fn calls_tool(step: &PlanStep) -> bool {
    matches!(step.action, Action::Tool { .. })
}

/// What all kinds of steps have in common: deadline, alarm, children left behind.
fn finish(mut memo: Memo, draft: Draft, look: &Look<'_>, then: Then) -> Result<Turn, ExprError> {
    let then = match (memo.deadline_ms, then) {
        (Some(deadline_ms), Then::Wait) if look.now_ms >= deadline_ms => {
            let limit_ms = look.step.timeout_ms.unwrap_or_default();
            time_out("timeout", format!("did not end within {limit_ms} ms (timeout_ms)"))
        }
        (_, then) => then,
    };
    match then {
        Then::Wait | Then::Run { .. } => {
            memo.set_alarm([draft.wake_ms, memo.deadline_ms].into_iter().flatten().min());
            memo.open = draft.open;
            Ok(Turn {
                memo: memo.write()?,
                children: draft.children,
                cancel: draft.cancel,
                alarm: memo.alarm.map(Into::into),
                listen: draft.listen,
                keep: draft.keep,
                items: draft.items,
                publish: Vec::new(),
                why: draft.why,
                then,
            })
        }
        Then::End(_) | Then::Gather { .. } | Then::Fail { .. } | Then::Skip => {
            let Draft { open, children, mut cancel, keep, .. } = draft;
            // what this turn would have started is not started
            cancel.extend(open.into_iter().filter(|key| children.iter().all(|child| child.key != *key)));
            Ok(Turn { cancel, keep, ..Turn::then(then) })
        }
    }
}

impl Actor {
    /// What a step of this kind remembers, and does first; or how it ends at once.
    fn begin(look: &Look<'_>, draft: &mut Draft) -> Result<Result<(Self, Then), Then>, ExprError> {
        let step = look.step;
        let mut actor = match (&step.action, &step.repeat, &step.then_wait, &step.for_each) {
            (Action::Tool { .. } | Action::Child(_), Some(_), None, None) => Self::Repeat(Looping::new()),
            (Action::Tool { .. }, None, Some(_), None) => Self::Callback(Callback::new()),
            (Action::Child(child), None, None, None) => Self::Child(Awaiting::new(child)),
            (Action::Child(_), None, None, Some(_)) => Self::Each(Each::new()),
            (Action::Race(_), None, None, None) => Self::Race(Race::new()),
            (Action::Approval(_), None, None, None) => Self::Approval(Box::new(Asking::new())),
            (Action::Wait(wait), None, None, None) => match Self::waiting(wait, look, &[])? {
                Ok(actor) => actor,
                Err(then) => return Ok(Err(then)),
            },
            (
                Action::Tool { .. }
                | Action::Decide
                | Action::Wait(_)
                | Action::Child(_)
                | Action::Race(_)
                | Action::Approval(_)
                | Action::Program(_),
                ..,
            ) => {
                let message = format!(
                    "step `{}` is of a kind that this program does not know; upgrade the worker",
                    step.id
                );
                return Ok(Err(fail("unsupported", message)));
            }
        };
        let then = actor.look(look, draft)?;
        Ok(Ok((actor, then)))
    }

    /// A wait that begins now.
    pub(super) fn waiting(
        wait: &Wait,
        look: &Look<'_>,
        locals: &super::draft::Locals<'_>,
    ) -> Result<Result<Self, Then>, ExprError> {
        Ok(match wait {
            Wait::For(_) | Wait::Until { .. } => Timer::begin(wait, look, locals)?.map(Self::Timer),
            Wait::Signal(signal) => Ok(Self::Signal(Listening::begin(signal, look.now_ms))),
        })
    }

    fn look(&mut self, look: &Look<'_>, draft: &mut Draft) -> Result<Then, ExprError> {
        let step = look.step;
        Ok(match (self, &step.action) {
            (Self::Timer(timer), _) => timer.look(look, draft),
            (Self::Signal(listening), Action::Wait(Wait::Signal(signal))) => {
                listening.look(signal, look, draft)
            }
            (Self::Callback(callback), Action::Tool { .. }) => callback.look(look, draft)?,
            (Self::Repeat(looping), Action::Tool { .. } | Action::Child(_)) => looping.look(look, draft)?,
            (Self::Child(awaiting), Action::Child(child)) => awaiting.look(child, look, draft)?,
            (Self::Each(each), Action::Child(child)) => each.look(child, look, draft)?,
            (Self::Race(race), Action::Race(branches)) => race.look(branches, look, draft)?,
            (Self::Approval(asking), Action::Approval(approval)) => asking.look(approval, look, draft)?,
            (
                Self::Signal(_)
                | Self::Callback(_)
                | Self::Repeat(_)
                | Self::Child(_)
                | Self::Each(_)
                | Self::Race(_)
                | Self::Approval(_),
                _,
            ) => fail(
                "memo_corrupt",
                "its memo is that of another kind of step; retry the step from its beginning".to_owned(),
            ),
        })
    }
}
