//! Doing part of a run again: which steps keep the ends that they had, and with which the new run begins.

use super::Plan;

/// How a step ended whose end may be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// With an output.
    Succeeded,
    /// It was skipped.
    Skipped,
}

/// What is done again of a run, and what is not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Again {
    /// Steps that keep their ends.
    pub kept: Vec<(u32, Kept)>,
    /// Of steps that count ends of those: the step, how many ends, how many successes (absent where those are not counted).
    pub counted: Vec<(u32, u32, Option<u32>)>,
    /// Steps to begin with.
    pub roots: Vec<u32>,
}

impl Plan {
    /// Which steps are done again: those that `stood` knows no end of worth keeping, those of `from`, and whatever is dispatched by one
    /// of them, directly or not. Steps beyond [`Self::main`] belong to a run's end and are never kept.
    #[must_use]
    pub fn again(&self, from: &[u32], stood: impl Fn(u32) -> Option<Kept>) -> Again {
        let mut anew = vec![false; self.main() as usize];
        let mut next: Vec<u32> =
            (0..self.main()).filter(|step| from.contains(step) || stood(*step).is_none()).collect();
        while let Some(step) = next.pop() {
            match anew.get_mut(step as usize) {
                Some(anew) if !*anew => *anew = true,
                _ => continue,
            }
            next.extend(self.dependents(step));
        }
        let is_kept = |step: u32| anew.get(step as usize) == Some(&false);
        let mut again = Again::default();
        for step in 0..self.main() {
            let Some(planned) = self.step(step) else { continue };
            if let Some(kept) = stood(step).filter(|_| is_kept(step)) {
                again.kept.push((step, kept));
            }
            let counted: Vec<u32> =
                planned.dispatched_by().iter().copied().filter(|by| is_kept(*by)).collect();
            let fires = planned.fires_when();
            let ended = u32::try_from(counted.len()).unwrap_or(u32::MAX);
            let succeeded = counted.iter().filter(|by| stood(**by) == Some(Kept::Succeeded)).count();
            let succeeded = u32::try_from(succeeded).unwrap_or(u32::MAX);
            if ended > 0 {
                again.counted.push((step, ended, (fires.ok > 0).then_some(succeeded)));
            }
            let is_due = ended == fires.ended || (fires.ok > 0 && succeeded >= fires.ok);
            if !is_kept(step) && is_due {
                again.roots.push(step);
            }
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::{Again, Kept, Plan};
    use crate::AnyTool;

    const TEXT: &str = "name: n\nsteps:\n  - { id: a, tool: t }\n  - { id: b, tool: t, needs: [a] }\n  - { id: c, tool: t, needs: [a] }\n  - { id: d, tool: t, needs: [b, c] }\n  - { id: e, tool: t, needs: [b, c], join: any }\n";

    fn plan() -> Plan {
        Plan::from_source(TEXT, "test.yaml", &AnyTool).unwrap()
    }

    fn all(step: u32) -> Option<Kept> {
        (step < 5).then_some(Kept::Succeeded)
    }

    #[test]
    fn what_failed_and_all_behind_it_is_done_again() {
        let again = plan().again(&[], |step| if step == 2 { None } else { all(step) });
        assert_eq!(again.kept, [(0, Kept::Succeeded), (1, Kept::Succeeded)]);
        assert_eq!(again.counted, [(1, 1, None), (2, 1, None), (3, 1, None), (4, 1, Some(1))]);
        // one success is enough for the last
        assert_eq!(again.roots, [2, 4]);
    }

    #[test]
    fn from_the_first_step_on_everything_is_done_again() {
        let again = plan().again(&[0], all);
        assert_eq!(again, Again { kept: vec![], counted: vec![], roots: vec![0] });
    }

    #[test]
    fn a_plan_in_order_goes_on_where_it_is_told_to() {
        let again = plan().in_order().again(&[3], all);
        assert_eq!(again.kept.len(), 3);
        assert_eq!(again.roots, [3]);
        let again = plan().again(&[], |step| (step != 1).then_some(Kept::Skipped));
        assert_eq!((again.kept.len(), again.roots), (2, vec![1]), "a join any waits for a success");
    }
}
