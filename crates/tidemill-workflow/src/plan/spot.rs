//! The place of an expression: which steps and which locals it sees.

use std::sync::Arc;

use super::graph::Graph;
use crate::template::{Around, Found};

/// The place of an expression in a list of steps, and the place of that list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Spot<'g> {
    graph: &'g Graph,
    sees: Sees,
    locals: Locals,
    is_closing: bool,
    /// The place of the step whose block this is.
    around: Option<&'g Self>,
}

/// Which steps of the list are upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sees {
    /// What a step waits for.
    Needs(u32),
    /// That, and the step itself: it has ended when it is undone.
    Past(u32),
    /// All up to an index.
    Before(u32),
    /// None.
    Nothing,
}

/// Locals that there are in a place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Locals {
    /// `.item` and `.index`.
    pub(super) item: bool,
    /// `.iteration` and `.previous`.
    pub(super) repeats: bool,
    /// `.feedback`, too.
    pub(super) feedback: bool,
    /// `.output`.
    pub(super) output: bool,
}

impl Locals {
    fn has(self, name: &str) -> bool {
        match name {
            "item" | "index" => self.item,
            "iteration" | "previous" => self.repeats || self.feedback,
            "feedback" => self.feedback,
            "output" => self.output,
            _ => false,
        }
    }

    /// These and those.
    pub(super) const fn and(self, other: Self) -> Self {
        Self {
            item: self.item || other.item,
            repeats: self.repeats || other.repeats,
            feedback: self.feedback || other.feedback,
            output: self.output || other.output,
        }
    }
}

impl<'g> Spot<'g> {
    fn new(graph: &'g Graph, sees: Sees, around: Option<&'g Self>) -> Self {
        let locals = around.map_or_else(Locals::default, |around| Locals { output: false, ..around.locals });
        Self { graph, sees, locals, is_closing: false, around }
    }

    /// A step's.
    pub(super) fn of_step(graph: &'g Graph, step: u32, around: Option<&'g Self>) -> Self {
        Self::new(graph, Sees::Needs(step), around)
    }

    /// That of the output of the list, which all steps up to `main` lie upstream of.
    pub(super) fn of_output(graph: &'g Graph, main: u32, around: Option<&'g Self>) -> Self {
        Self::new(graph, Sees::Before(main), around)
    }

    /// That of the step that undoes another.
    pub(super) fn of_undo(graph: &'g Graph, undone: u32, around: Option<&'g Self>) -> Self {
        Self { is_closing: true, ..Self::new(graph, Sees::Past(undone), around) }
    }

    /// That of a step that is run at the end.
    pub(super) fn of_finally(graph: &'g Graph, step: u32) -> Self {
        Self { is_closing: true, ..Self::new(graph, Sees::Before(step), None) }
    }

    /// One that sees the run's input and no step.
    pub(super) fn of_start(graph: &'g Graph) -> Self {
        Self::new(graph, Sees::Nothing, None)
    }

    /// The same place, where there are these locals, too.
    pub(super) fn with(&self, locals: Locals) -> Self {
        Self { locals: self.locals.and(locals), ..*self }
    }
}

impl Around for Spot<'_> {
    fn step(&self, id: &str) -> Option<Found> {
        if let Some((id, step)) = self.graph.index.get_key_value(id) {
            return Some(Found::Own(*step, Arc::clone(id)));
        }
        self.around.and_then(|around| match around.step(id)? {
            Found::Own(_, id) | Found::Outer(id) => Some(Found::Outer(id)),
        })
    }

    fn is_upstream(&self, step: &Found) -> bool {
        match step {
            Found::Own(step, _) => match self.sees {
                Sees::Needs(own) => self.graph.waits_for(own, *step),
                Sees::Past(own) => own == *step || self.graph.waits_for(own, *step),
                Sees::Before(end) => *step < end,
                Sees::Nothing => false,
            },
            Found::Outer(id) => self
                .around
                .is_some_and(|around| around.step(id).is_some_and(|step| around.is_upstream(&step))),
        }
    }

    fn upstream(&self) -> Vec<Found> {
        let own = |step: u32| Found::Own(step, self.graph.id(step));
        let mut found: Vec<Found> = match self.sees {
            Sees::Needs(step) => self.graph.ancestors(step).into_iter().map(own).collect(),
            Sees::Past(step) => self.graph.ancestors(step).into_iter().chain([step]).map(own).collect(),
            Sees::Before(end) => (0..end).map(own).collect(),
            Sees::Nothing => Vec::new(),
        };
        let outer = self.around.into_iter().flat_map(Around::upstream);
        found.extend(outer.map(|step| match step {
            Found::Own(_, id) | Found::Outer(id) => Found::Outer(id),
        }));
        found
    }

    fn ids(&self) -> Vec<Arc<str>> {
        let mut ids = self.graph.names().to_vec();
        ids.extend(self.around.into_iter().flat_map(Around::ids));
        ids
    }

    fn has(&self, local: &str) -> bool {
        self.locals.has(local)
    }

    fn is_closing(&self) -> bool {
        self.is_closing
    }
}
