use proptest::prelude::*;
use tidemill_protocol::{RunState, StepState};

use crate::any_tool::AnyTool;
use crate::orchestrate::{Close, Standing, closing};
use crate::plan::Plan;
use StepState::{Cancelled, Failed, Pending, Running, Skipped, Succeeded, Waiting};

/// Steps `a` and `b` are undone, `c` is not; `mail` and `log` come last.
fn plan() -> Plan {
    let text = "
name: w
steps:
  - { id: a, tool: echo, compensate: { tool: echo } }
  - { id: b, tool: echo, compensate: { tool: echo } }
  - { id: c, tool: echo }
finally:
  - { id: mail, tool: echo }
  - { id: log, tool: echo }
";
    Plan::from_source(text, "w.yaml", &AnyTool).unwrap_or_else(|problems| panic!("{problems}"))
}

/// A run with its steps in these states, `b` having ended before `a`.
struct Closing(Vec<Standing>);

impl Closing {
    fn new(states: [StepState; 3]) -> Self {
        let ended = [20, 10, 30];
        let main = states.into_iter().zip(ended).map(|(state, ended)| Standing { state, ended });
        Self(main.collect())
    }

    fn next(&self, to: RunState, undo: bool) -> Close {
        closing(&plan(), &self.0, to, undo)
    }

    fn dispatched(&self, to: RunState) -> Option<String> {
        match self.next(to, true) {
            Close::Dispatch(step) => plan().step(step).map(|step| step.id.to_string()),
            Close::Wait | Close::End(_) => None,
        }
    }

    fn end(&mut self, id: &str, state: StepState) {
        let step = plan().step_index(id).expect("the step exists") as usize;
        self.0.resize(plan().steps.len(), Standing { state: Pending, ended: 0 });
        self.0[step] = Standing { state, ended: 99 };
    }
}

#[test]
fn what_ended_last_is_undone_first_and_then_comes_what_comes_last() {
    let mut run = Closing::new([Succeeded, Succeeded, Failed]);
    for id in ["a!undo", "b!undo", "mail", "log"] {
        assert_eq!(run.dispatched(RunState::Failed).as_deref(), Some(id));
        run.end(id, Running);
        assert_eq!(run.next(RunState::Failed, true), Close::Wait);
        run.end(id, Succeeded);
    }
    assert_eq!(run.next(RunState::Failed, true), Close::End(RunState::Compensated));
}

#[test]
fn nothing_is_undone_before_all_that_may_run_has_ended() {
    for state in [Running, Waiting, StepState::Ready] {
        assert_eq!(
            Closing::new([Succeeded, state, Failed]).next(RunState::Failed, true),
            Close::Wait,
            "{state:?}"
        );
    }
    for state in [Pending, StepState::Parked, StepState::Retrying] {
        let run = Closing::new([Succeeded, state, Failed]);
        assert_eq!(run.dispatched(RunState::Failed).as_deref(), Some("a!undo"), "{state:?} never begins");
    }
}

#[test]
fn an_undoing_that_failed_does_not_keep_the_others() {
    let mut run = Closing::new([Succeeded, Succeeded, Failed]);
    run.end("a!undo", Failed);
    assert_eq!(run.dispatched(RunState::Failed).as_deref(), Some("b!undo"));
    for id in ["b!undo", "mail", "log"] {
        run.end(id, Succeeded);
    }
    assert_eq!(run.next(RunState::Failed, true), Close::End(RunState::CompensationFailed));
}

#[test]
fn a_run_that_succeeded_or_is_spared_only_does_what_comes_last() {
    for (to, undo) in [(RunState::Succeeded, true), (RunState::Cancelled, false)] {
        let mut run = Closing::new([Succeeded, Succeeded, Cancelled]);
        assert_eq!(run.next(to, undo), Close::Dispatch(plan().finally[0]));
        run.end("mail", Failed);
        assert_eq!(run.next(to, undo), Close::Dispatch(plan().finally[1]));
        run.end("log", StepState::TimedOut);
        assert_eq!(run.next(to, undo), Close::End(to), "and a failure of that changes nothing");
    }
}

#[test]
fn a_run_that_has_done_nothing_has_nothing_to_undo() {
    let mut run = Closing::new([Failed, Skipped, Cancelled]);
    run.end("mail", Succeeded);
    run.end("log", Succeeded);
    assert_eq!(run.next(RunState::TimedOut, true), Close::End(RunState::TimedOut));
}

proptest! {
    #[test]
    fn closing_comes_to_an_end_and_undoes_what_was_done(
        main in prop::collection::vec((prop::sample::select(&[Succeeded, Failed, Skipped, Cancelled, Pending][..]), 0..5_u64), 3),
        ends in prop::collection::vec(prop::sample::select(&[Succeeded, Failed][..]), 4),
        to in prop::sample::select(&[RunState::Succeeded, RunState::Failed, RunState::Cancelled, RunState::TimedOut][..]),
        undo in any::<bool>(),
    ) {
        let plan = plan();
        let mut steps: Vec<Standing> = main.iter().map(|(state, ended)| Standing { state: *state, ended: *ended }).collect();
        steps.resize(plan.steps.len(), Standing { state: Pending, ended: 0 });
        let mut run = Vec::new();
        let end = loop {
            match closing(&plan, &steps, to, undo) {
                Close::Wait => prop_assert!(false, "nothing is in flight"),
                Close::End(end) => break end,
                Close::Dispatch(step) => {
                    prop_assert!(!run.contains(&step) && run.len() < ends.len());
                    steps[step as usize].state = ends[run.len()];
                    run.push(step);
                }
            }
        };
        let is_undone = to != RunState::Succeeded && (to != RunState::Cancelled || undo);
        let mut done: Vec<(u64, u32, u32)> = (0..plan.main())
            .filter(|step| is_undone && steps[*step as usize].state == Succeeded)
            .filter_map(|step| Some((steps[step as usize].ended, step, plan.steps[step as usize].undo?)))
            .collect();
        done.sort_unstable();
        let undone: Vec<u32> = done.into_iter().rev().map(|(.., undo)| undo).collect();
        let all_well = undone.iter().all(|step| steps[*step as usize].state == Succeeded);
        prop_assert_eq!(&run, &[undone.as_slice(), &plan.finally].concat());
        prop_assert_eq!(end, match (undone.is_empty(), all_well) {
            (true, _) => to,
            (false, true) => RunState::Compensated,
            (false, false) => RunState::CompensationFailed,
        });
    }
}
