//! Workflows drawn from a number: every kind of step, in every place where it may stand.

use std::collections::BTreeMap;

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

/// What the people and services around a run do, by the ids of steps.
#[derive(Debug, Clone, Default)]
pub(super) struct Book {
    /// Payloads of the signals that are sent.
    pub(super) signals: BTreeMap<String, Value>,
    /// What is decided, question by question; nothing after the last.
    pub(super) verdicts: BTreeMap<String, Vec<bool>>,
}

/// A workflow, those that it runs, and what happens around them.
#[derive(Debug, Clone)]
pub(super) struct Drawn {
    pub(super) workflow: Value,
    /// By their names.
    pub(super) others: BTreeMap<String, Value>,
    pub(super) book: Book,
}

/// Draws a workflow of up to 30 steps, those of blocks and of other workflows included.
pub(super) fn draw(seed: u64, name: &str) -> Drawn {
    let mut maker = Maker {
        random: SmallRng::seed_from_u64(seed),
        next: 0,
        left: 0,
        others: Vec::new(),
        book: Book::default(),
    };
    let mut others = BTreeMap::new();
    for n in 0..maker.random.random_range(0..3) {
        let other = format!("{name}-other{n}");
        maker.left = 4;
        let steps = maker.steps(3, 1);
        others.insert(
            other.clone(),
            json!({ "name": other, "failure": "finish", "output": "${ .input.n }", "steps": steps }),
        );
        maker.others.push(other);
    }
    maker.left = maker.random.random_range(5..=26);
    let mut steps = maker.steps(usize::MAX, 0);
    maker.close(&mut steps);
    let output: serde_json::Map<_, _> =
        steps.iter().filter_map(|step| Some((step["id"].as_str()?.to_owned(), told(step)))).collect();
    let failure = if maker.chance(85) { "finish" } else { "fail_fast" };
    let mut workflow = json!({ "name": name, "failure": failure, "steps": steps, "output": output });
    let last = maker.random.random_range(0..3);
    if last > 0 {
        let last: Vec<Value> = (0..last)
            .map(|_| {
                let id = maker.id();
                let mut step = maker.act();
                step["id"] = json!(id);
                step
            })
            .collect();
        workflow["finally"] = json!(last);
    }
    Drawn { workflow, others, book: maker.book }
}

/// What the run's output says about a step: its state, and its output if that can be known before.
fn told(step: &Value) -> Value {
    let id = step["id"].as_str().unwrap_or_default();
    if is_readable(step) {
        json!([format!("${{ .steps.{id}.state }}"), format!("${{ .steps.{id}.output }}")])
    } else {
        json!(format!("${{ .steps.{id}.state }}"))
    }
}

/// When a timer rang, and which id a detached run has, nobody knows before.
fn is_readable(step: &Value) -> bool {
    step["wait"]["for_ms"].is_null() && step["detached"].is_null()
}

struct Maker {
    random: SmallRng,
    next: usize,
    /// Steps that may still be drawn.
    left: usize,
    others: Vec<String>,
    book: Book,
}

impl Maker {
    fn chance(&mut self, percent: u32) -> bool {
        self.random.random_range(0..100) < percent
    }

    fn id(&mut self) -> String {
        self.next += 1;
        self.left = self.left.saturating_sub(1);
        format!("s{}", self.next)
    }

    fn word(&mut self, words: &[&str]) -> Value {
        json!(words.choose(&mut self.random))
    }

    /// Steps of one level, which need earlier ones of it.
    fn steps(&mut self, most: usize, depth: u32) -> Vec<Value> {
        let mut steps: Vec<Value> = Vec::new();
        while self.left > 0 && steps.len() < most {
            let id = self.id();
            let (needs, join) = self.needs(&steps);
            match self.random.random_range(0..100) {
                0..8 => self.switch(&id, &needs, &mut steps),
                8..16 => self.goto(&id, &needs, &mut steps),
                _ => {
                    let mut step = self.action(&id, depth, (&steps, &needs, join.is_none()));
                    step["id"] = json!(id);
                    self.circumstances(&mut step, &needs, join);
                    steps.push(step);
                }
            }
        }
        steps
    }

    fn needs(&mut self, steps: &[Value]) -> (Vec<String>, Option<Value>) {
        let count = self.random.random_range(0..4_usize).min(steps.len());
        let chosen = steps.choose_multiple(&mut self.random, count);
        let needs: Vec<String> = chosen.filter_map(|step| Some(step["id"].as_str()?.to_owned())).collect();
        let join = (needs.len() > 1 && self.chance(20))
            .then(|| if needs.len() < 3 || self.chance(50) { json!("any") } else { json!({ "n_of": 2 }) });
        (needs, join)
    }

    fn circumstances(&mut self, step: &mut Value, needs: &[String], join: Option<Value>) {
        step["needs"] = json!(needs);
        if self.chance(30) && !step["approval"].is_object() {
            step["on_error"] = json!("continue");
        } else if self.chance(3) {
            step["on_error"] = json!("compensate");
        }
        match (join, needs.first()) {
            (Some(join), _) => step["join"] = join,
            (None, Some(need)) if self.chance(15) => {
                step["when"] = json!(format!("${{ .steps.{need}.state == \"succeeded\" }}"));
            }
            (None, None) if self.chance(10) => step["when"] = json!("${ .input.n > 50 }"),
            _ => {}
        }
    }

    /// What the needs gave, where there is something to read.
    fn seen(steps: &[Value], needs: &[String]) -> Vec<Value> {
        let read = |need: &&String| steps.iter().any(|step| step["id"] == **need && is_readable(step));
        needs.iter().filter(read).map(|need| json!(format!("${{ .steps.{need}.output }}"))).collect()
    }

    /// A call of the scripted tool.
    fn act(&mut self) -> Value {
        let out = self.random.random_range(0..1_000);
        match self.random.random_range(0..20) {
            0..4 => {
                let fails = self.random.random_range(1..3);
                json!({ "tool": "act", "with": { "do": "flaky", "fails": fails, "out": out }, "retry": { "max_attempts": 6, "base_ms": 2, "max_ms": 10 } })
            }
            4 => {
                json!({ "tool": "act", "with": { "do": "never", "out": out }, "retry": { "max_attempts": 2, "base_ms": 2 } })
            }
            5 => self.failing(),
            _ => {
                json!({ "tool": "act", "with": { "do": "ok", "out": out }, "retry": { "max_attempts": 2, "base_ms": 2 } })
            }
        }
    }

    fn failing(&mut self) -> Value {
        let out = self.random.random_range(0..1_000);
        json!({ "tool": "act", "with": { "do": "refuse", "out": out }, "retry": { "max_attempts": 3, "base_ms": 2 } })
    }

    fn works(&mut self) -> Value {
        let out = self.random.random_range(0..1_000);
        json!({ "tool": "act", "with": { "do": "ok", "out": out }, "retry": { "max_attempts": 2, "base_ms": 2 } })
    }

    fn action(&mut self, id: &str, depth: u32, (steps, needs, reads): (&[Value], &[String], bool)) -> Value {
        let is_deep = depth > 1 || self.left == 0;
        match self.random.random_range(0..100) {
            0..36 => {
                let mut step = self.act();
                if reads {
                    step["with"]["seen"] = json!(Self::seen(steps, needs));
                }
                step
            }
            36..42 => self.items(),
            42..48 => self.polls(),
            48..53 => json!({ "wait": { "for_ms": self.random.random_range(1..25) } }),
            53..62 => self.signal(id),
            62..70 => self.approval(id, steps, needs),
            70..74 if !self.others.is_empty() => self.other(),
            _ if is_deep => self.act(),
            70..78 => self.block(depth),
            78..84 => self.items_in_blocks(depth),
            84..90 => self.loops(depth),
            _ => self.race(),
        }
    }

    fn words(&mut self) -> Vec<Value> {
        (0..self.random.random_range(0..6))
            .map(|_| self.word(&["ok", "ok", "ok", "flaky", "refuse"]))
            .collect()
    }

    fn tolerate(&mut self, words: &[Value]) -> Value {
        let failing = words.iter().filter(|word| **word == "refuse").count();
        // more often enough than not: how far items get of which too many fail is not certain
        if self.chance(80) { json!(failing) } else { json!(self.random.random_range(0..2)) }
    }

    fn items(&mut self) -> Value {
        let (words, concurrency) = (self.words(), self.random.random_range(1..4));
        if self.chance(25) {
            return json!({ "tool": "act", "with": { "do": "ok", "out": "${ .item | length }", "it": "${ .index }" }, "for_each": { "items": words, "concurrency": concurrency, "batch": 2 }, "retry": { "max_attempts": 2, "base_ms": 2 } });
        }
        let tolerate = self.tolerate(&words);
        json!({ "tool": "act", "with": { "do": "${ .item }", "fails": 1, "out": "${ .index }" }, "for_each": { "items": words, "concurrency": concurrency, "tolerate": tolerate }, "retry": { "max_attempts": 5, "base_ms": 2, "max_ms": 10 } })
    }

    fn polls(&mut self) -> Value {
        let enough = self.random.random_range(1..5);
        let (most, exhausted) = (self.random.random_range(1..5), self.word(&["fail", "continue"]));
        let with = json!({ "do": "ok", "out": "${ .iteration }", "it": "${ .iteration }", "seen": "${ .previous }" });
        let repeat = match self.random.random_range(0..3) {
            0 => {
                json!({ "while": format!("${{ .iteration <= {enough} }}"), "max_iterations": most, "on_exhausted": exhausted })
            }
            1 => {
                json!({ "until": format!("${{ .iteration >= {enough} }}"), "max_iterations": most, "on_exhausted": exhausted, "every_ms": 2 })
            }
            _ => {
                json!({ "until": format!("${{ .output % {} == 0 }}", enough + 1), "max_iterations": most, "on_exhausted": exhausted })
            }
        };
        json!({ "tool": "act", "with": with, "repeat": repeat, "retry": { "max_attempts": 2, "base_ms": 2 } })
    }

    fn signal(&mut self, id: &str) -> Value {
        let name = format!("go-{id}");
        let sent = self.chance(70);
        if sent {
            let payload = json!({ "for": id, "n": self.random.random_range(0..100) });
            self.book.signals.insert(id.to_owned(), payload);
        }
        let mut wait = json!({ "signal": name });
        if !sent {
            wait["timeout_ms"] = json!(20);
            wait["on_timeout"] = self.word(&["fail", "continue"]);
        }
        let mut step = if self.chance(30) { self.act() } else { json!({}) };
        step["wait"] = wait;
        step
    }

    fn approval(&mut self, id: &str, steps: &[Value], needs: &[String]) -> Value {
        let verdicts: Vec<bool> = (0..self.random.random_range(0..4)).map(|_| self.chance(50)).collect();
        // nobody decides when the last of these is over, so there must be a deadline unless one of them is an end
        let mut approval = json!({ "on_reject": self.word(&["fail", "continue"]) });
        let can_be_made_anew = |need: &&String| {
            steps.iter().any(|step| {
                step["id"] == **need
                    && step["tool"].is_string()
                    && step["for_each"].is_null()
                    && step["repeat"].is_null()
                    && step["wait"].is_null()
            })
        };
        if let Some(of) = needs.iter().find(can_be_made_anew) {
            approval["of"] = json!(of);
            approval["max_iterations"] = json!(self.random.random_range(1..4));
            if self.chance(70) {
                approval["on_reject"] = json!("revise");
            }
        }
        let is_decided =
            verdicts.contains(&true) || (!verdicts.is_empty() && approval["on_reject"] != "revise");
        if !is_decided {
            approval["timeout_ms"] = json!(25);
            approval["on_timeout"] = self.word(&["fail", "approve", "reject"]);
        }
        // somebody who may decide within a few milliseconds may be late
        let verdicts = if is_decided { verdicts } else { Vec::new() };
        self.book.verdicts.insert(id.to_owned(), verdicts);
        json!({ "approval": approval })
    }

    fn other(&mut self) -> Value {
        let (other, n) = (self.others.choose(&mut self.random).cloned(), self.random.random_range(0..100));
        let mut step = json!({ "workflow": other, "with": { "n": n } });
        if self.chance(20) {
            step["detached"] = json!(true);
        } else if self.chance(25) {
            step["for_each"] = json!({ "items": [1, 2, 3], "concurrency": 2, "tolerate": 3 });
            step["with"] = json!({ "n": "${ .item * 30 }" });
        }
        step
    }

    fn block(&mut self, depth: u32) -> Value {
        let steps = self.steps(3, depth + 1);
        if steps.is_empty() {
            return self.act();
        }
        let output: Vec<Value> = steps.iter().map(told).collect();
        json!({ "steps": steps, "output": output })
    }

    fn items_in_blocks(&mut self, depth: u32) -> Value {
        let mut step = self.block(depth);
        if step["steps"].is_array() {
            let (words, concurrency) = (self.words(), self.random.random_range(1..4));
            let tolerate = json!(words.len());
            step["for_each"] = json!({ "items": words, "concurrency": concurrency, "tolerate": tolerate });
            if self.chance(50) {
                let id = self.id();
                let with = json!({ "do": "${ .item }", "fails": 1, "out": "${ .index }" });
                let inner = json!({ "id": id, "tool": "act", "with": with, "retry": { "max_attempts": 5, "base_ms": 2 } });
                if let Some(steps) = step["steps"].as_array_mut() {
                    steps.push(inner);
                }
            }
        }
        step
    }

    fn loops(&mut self, depth: u32) -> Value {
        let mut step = self.block(depth);
        if step["steps"].is_array() {
            let most = self.random.random_range(0..4);
            step["repeat"] = json!({ "while": format!("${{ .iteration <= {most} }}") });
        }
        step
    }

    /// At most one branch wins, or who does would not be certain.
    fn race(&mut self) -> Value {
        let has_winner = self.chance(85);
        let count = self.random.random_range(2..4);
        let winner = self.random.random_range(0..count);
        let branches: Vec<Value> = (0..count)
            .map(|branch| {
                let id = self.id();
                let mut step = if has_winner && branch == winner {
                    let works = self.works();
                    if self.chance(50) { works } else { self.only(works) }
                } else {
                    match self.random.random_range(0..3) {
                        // it would never end if nobody won
                        0 if has_winner => json!({ "wait": { "signal": format!("never-{id}") } }),
                        1 => {
                            let fails = self.failing();
                            self.only(fails)
                        }
                        _ => self.failing(),
                    }
                };
                step["id"] = json!(id);
                step
            })
            .collect();
        json!({ "race": branches })
    }

    fn only(&mut self, mut step: Value) -> Value {
        step["id"] = json!(self.id());
        let output = format!("${{ .steps.{}.output }}", step["id"].as_str().unwrap_or_default());
        json!({ "steps": [step], "output": output })
    }

    fn switch(&mut self, id: &str, needs: &[String], steps: &mut Vec<Value>) {
        let (first, second) = (self.id(), self.id());
        let bound = self.random.random_range(0..100);
        let mut cases = json!([{ "when": format!("${{ .input.n >= {bound} }}"), "then": [first] }, { "default": [second] }]);
        if self.chance(20) {
            cases = json!([{ "when": format!("${{ .input.n >= {bound} }}"), "then": [first, second] }]);
        }
        steps.push(json!({ "id": id, "needs": needs, "switch": cases }));
        for chosen in [first, second] {
            let mut step = self.act();
            step["id"] = json!(chosen);
            step["on_error"] = json!("continue");
            steps.push(step);
        }
    }

    fn goto(&mut self, id: &str, needs: &[String], steps: &mut Vec<Value>) {
        let (rescue, after) = (self.id(), self.id());
        let mut step = if self.chance(50) { self.failing() } else { self.act() };
        step["id"] = json!(id);
        step["needs"] = json!(needs);
        step["on_error"] = json!({ "goto": rescue });
        steps.push(step);
        let mut step = self.works();
        step["id"] = json!(rescue);
        steps.push(step);
        let mut step = self.works();
        step["id"] = json!(after);
        step["needs"] = json!([id]);
        steps.push(step);
    }

    /// Some steps can be undone.
    fn close(&mut self, steps: &mut [Value]) {
        if !self.chance(50) {
            return;
        }
        for step in steps {
            let can = step["tool"].is_string() && step["for_each"].is_null();
            if can && self.chance(50) {
                let mut undo = self.act();
                undo["with"]["seen"] = json!("${ .run.state }");
                step["compensate"] = undo;
            }
        }
    }
}
