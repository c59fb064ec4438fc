//! The workflows that are measured. Each step takes what the one before it gave: that is what steps are for.

use serde_json::{Value, json};

/// A workflow and how many steps it has.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// For people.
    pub(super) label: &'static str,
    /// Its name.
    pub(super) name: &'static str,
    /// Its steps.
    pub(super) steps: Vec<Value>,
}

impl Shape {
    /// One step.
    pub(super) fn single() -> Self {
        Self { label: "1 step", name: "single", steps: links(1) }
    }

    /// So many steps, one after the other.
    pub(super) fn chain(label: &'static str, name: &'static str, length: usize) -> Self {
        Self { label, name, steps: links(length) }
    }

    /// One step, `width` steps that need it, and one that needs them all.
    pub(super) fn fan(label: &'static str, name: &'static str, width: usize) -> Self {
        let middle: Vec<String> = (0..width).map(|at| format!("w{at}")).collect();
        let outputs: Vec<String> = middle.iter().map(|id| format!(".steps.{id}.output.n")).collect();
        let mut steps = vec![step("first", &[], "${ .input.n }")];
        steps.extend(middle.iter().map(|id| step(id, &["first"], "${ .steps.first.output.n }")));
        let needs: Vec<&str> = middle.iter().map(String::as_str).collect();
        steps.push(step("last", &needs, &format!("${{ [{}] | add }}", outputs.join(", "))));
        Self { label, name, steps }
    }

    /// As [`Shape::fan`], but the last step looks at none of what it waited for: with thousands of outputs its expression alone
    /// would be measured.
    pub(super) fn wide(label: &'static str, name: &'static str, width: usize) -> Self {
        let fan = Self::fan(label, name, width);
        let mut steps = fan.steps;
        if let Some(last) = steps.last_mut().and_then(Value::as_object_mut) {
            last.insert("with".to_owned(), json!({ "n": "${ .input.n }" }));
        }
        Self { steps, ..fan }
    }

    /// One step for each of `count` items, so many at once. The items stand in the input.
    pub(super) fn for_each(label: &'static str, name: &'static str, concurrency: usize) -> Self {
        let each = json!({ "items": "${ .input.items }", "concurrency": concurrency });
        let steps = vec![json!({ "id": "each", "tool": "echo", "for_each": each, "with": "${ .item }" })];
        Self { label, name, steps }
    }

    /// As it is published. What the last step gives is what the run gives.
    pub(super) fn source(&self) -> String {
        json!({ "name": self.name, "steps": self.steps }).to_string()
    }
}

fn step(id: &str, needs: &[&str], n: &str) -> Value {
    json!({ "id": id, "tool": "echo", "needs": needs, "with": { "n": n } })
}

fn links(length: usize) -> Vec<Value> {
    let link = |at: usize| match at.checked_sub(1) {
        None => step("s0", &[], "${ .input.n }"),
        Some(before) => {
            step(&format!("s{at}"), &[&format!("s{before}")], &format!("${{ .steps.s{before}.output.n }}"))
        }
    };
    (0..length).map(link).collect()
}

#[cfg(test)]
mod tests {
    use super::Shape;

    #[test]
    fn shapes_have_the_steps_that_they_are_named_for() {
        let shapes = [
            (Shape::single(), 1),
            (Shape::chain("", "chain", 9), 9),
            (Shape::fan("", "fan", 10), 12),
            (Shape::wide("", "wide", 3), 5),
            (Shape::for_each("", "each", 5), 1),
        ];
        for (shape, steps) in shapes {
            assert_eq!(shape.steps.len(), steps, "{}", shape.source());
        }
        let chain = Shape::chain("", "chain", 3).source();
        assert!(chain.contains(r#""needs":["s1"]"#) && chain.contains(".steps.s1.output.n"), "{chain}");
    }
}
