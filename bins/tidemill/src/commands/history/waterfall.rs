//! Steps as bars over time.

use tidemill_producer::views::StepHistoryView;
use tidemill_protocol::Span;

use crate::moment::duration;
use crate::table::{Style, printable, shortened};

/// The states that take time, as they are listed.
const STATES: [&str; 4] = ["ready", "running", "parked", "retrying"];

/// Longest name of a step in the picture, in characters.
const MAX_NAME: usize = 28;
/// A bar is never narrower than this.
const MIN_BAR: usize = 20;
/// What stands behind a bar: two blanks and a duration.
const BEHIND: usize = 12;

/// How a state is drawn: each has a sign of its own, so that it can be told without colours.
fn sign(state: usize) -> (char, Style, &'static str) {
    match state {
        0 => ('░', Style::Dim, "waiting"),
        1 => ('█', Style::Busy, "running"),
        2 => ('▒', Style::Waiting, "parked"),
        _ => ('╌', Style::Waiting, "retrying"),
    }
}

/// How long a step was in each of the states that take time, in milliseconds.
pub(super) fn times(step: &StepHistoryView) -> [(&'static str, u64); 4] {
    let times = step.durations_ms;
    let [ready, running, parked, retrying] = STATES;
    [(ready, times.ready), (running, times.running), (parked, times.parked), (retrying, times.retrying)]
}

/// What a picture is drawn on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Picture {
    /// The left edge, in Unix milliseconds.
    pub(super) began: u64,
    /// The right edge.
    pub(super) until: u64,
    /// How many characters a line may have.
    pub(super) columns: usize,
    /// Whether colours are used.
    pub(super) color: bool,
}

impl Picture {
    /// One line a step below a scale, and what the signs mean.
    pub(super) fn draw(&self, steps: &[StepHistoryView]) -> String {
        let names: Vec<String> = steps.iter().map(|step| shortened(&printable(&step.id), MAX_NAME)).collect();
        let name_width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
        let width = self.columns.saturating_sub(name_width + 2 + BEHIND).max(MIN_BAR);
        let end = duration(self.until.saturating_sub(self.began));
        let mut text = format!("{:name_width$}  0{end:>rest$}\n", "", rest = width.saturating_sub(1));
        for (name, step) in names.iter().zip(steps) {
            let took = duration(step.durations_ms.total());
            let bar = self.paint(&self.bar(&step.spans, width));
            let blanks = " ".repeat(name_width - name.chars().count());
            text.push_str(format!("{name}{blanks}  {bar}  {took}").trim_end());
            text.push('\n');
        }
        let legend = (0..STATES.len()).map(|state| {
            let (sign, style, meaning) = sign(state);
            format!("{} {meaning}", style.paint(&sign.to_string().repeat(2), self.color))
        });
        text.push_str(&format!("{:name_width$}  {}\n", "", legend.collect::<Vec<_>>().join("   ")));
        text
    }

    /// For each place of a bar the state that lasted longest in its time, if there was any.
    fn bar(&self, spans: &[Span], width: usize) -> Vec<Option<usize>> {
        // a clock that was set back must not end the picture before it begins
        let until = self.until.max(self.began);
        let total = (until - self.began).max(1);
        let mut times = vec![[0_u64; STATES.len()]; width];
        let scale = |ms: u64| (ms.clamp(self.began, until) - self.began) * width as u64;
        for span in spans {
            let Some(state) = STATES.iter().position(|state| *state == span.state) else { continue };
            // in parts of a place: a place is `total` of them
            let (from, to) = (scale(span.from_ms), scale(span.to_ms.unwrap_or(until)));
            let first = place(from / total, width);
            let last = place(to.saturating_sub(1).max(from) / total, width);
            for (at, time) in times.iter_mut().enumerate().take(last + 1).skip(first) {
                let (left, right) = (at as u64 * total, (at as u64 + 1) * total);
                // what is shorter than can be measured is still there
                time[state] += right.min(to).saturating_sub(left.max(from)).max(1);
            }
        }
        let longest = |time: &[u64; STATES.len()]| {
            let (state, most) = time.iter().enumerate().max_by_key(|(_, time)| **time)?;
            (*most > 0).then_some(state)
        };
        times.iter().map(longest).collect()
    }

    fn paint(&self, bar: &[Option<usize>]) -> String {
        let mut text = String::new();
        for run in bar.chunk_by(|one, other| one == other) {
            match run.first().copied().flatten() {
                Some(state) => {
                    let (sign, style, _) = sign(state);
                    text.push_str(&style.paint(&sign.to_string().repeat(run.len()), self.color));
                }
                None => text.push_str(&" ".repeat(run.len())),
            }
        }
        text
    }
}

fn place(at: u64, width: usize) -> usize {
    usize::try_from(at).unwrap_or(width).min(width - 1)
}

#[cfg(test)]
mod tests {
    use tidemill_producer::views::StepHistoryView;
    use tidemill_protocol::{AuditRecord, Timeline};

    use super::Picture;

    fn steps(lines: &[&str]) -> Vec<StepHistoryView> {
        let mut timeline = Timeline::default();
        for (seq, line) in (1..).zip(lines) {
            timeline.add(AuditRecord::parse(seq, line).unwrap());
        }
        timeline.tracks().map(|track| StepHistoryView::of(track.clone(), 2_000)).collect()
    }

    fn picture(until: u64) -> Picture {
        Picture { began: 1_000, until, columns: 39, color: false }
    }

    #[test]
    fn waiting_running_parked_and_retrying_are_told_apart() {
        let steps = steps(&[
            "order pending ready 1000 1 -",
            "order ready running 1100 1 w1",
            "order running retrying 1300 1 w1",
            "order retrying ready 1500 2 -",
            "order ready running 1500 2 w1",
            "order running succeeded 1700 2 w1",
            "hold pending ready 1700 1 -",
            "hold ready parked 1750 1 w1",
            "hold parked ready 1950 1 -",
            "hold ready running 1950 1 w1",
            "hold running succeeded 2000 1 w1",
        ]);
        let text = picture(2_000).draw(&steps);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "       0             1.00 s");
        assert_eq!(lines[1], "order  ░░████╌╌╌╌████        700 ms");
        assert_eq!(lines[2], "hold                 ░▒▒▒▒█  300 ms");
        assert_eq!(lines[3], "       ░░ waiting   ██ running   ▒▒ parked   ╌╌ retrying");
    }

    #[test]
    fn what_is_short_is_never_lost_and_nothing_leaves_the_picture() {
        let steps = steps(&[
            "a pending ready 1000 1 -",
            "a ready running 1000 1 w1",
            "a running succeeded 1001 1 w1",
            "b pending ready 9000 1 -",
            "b ready running 9999999 1 w1",
        ]);
        let picture = picture(2_000);
        for (step, first, last) in [(&steps[0], Some(1), None), (&steps[1], None, Some(1))] {
            let bar = picture.bar(&step.spans, 20);
            assert_eq!((bar.len(), bar[0], bar[19]), (20, first, last), "{}", step.id);
        }
        let empty = Picture { began: 5, until: 5, columns: 0, color: true };
        assert!(empty.draw(&steps).contains('a'));
    }
}
