//! What an evaluation may use: fuel, stack and nesting.
//!
//! The interpreter asks for its look-up table before each term, and every operation on a value goes through
//! [`Val`](super::value::Val): both charge here, so no loop, native or defined, runs for free. When a limit is
//! reached the evaluation is unwound with [`std::panic::resume_unwind`], which calls no panic hook. That makes
//! exhaustion final: no `try`, `?` or `//` of the expression can catch it, and nothing runs on afterwards.
//! It needs `panic = "unwind"`, which the workspace's profiles set.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::Limits;

/// Which limit stopped an evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    Fuel,
    Stack,
    Depth,
}

/// How much of the thread's stack an evaluation may take. Worker threads have 2 MiB; frames of debug builds are large.
const STACK_BYTES: usize = if cfg!(debug_assertions) { 1 << 20 } else { 512 << 10 };
/// Stack that usual expressions take.
const SHALLOW_BYTES: usize = 24 << 10;

thread_local! {
    static FUEL: Cell<u64> = const { Cell::new(u64::MAX) };
    static DEPTH: Cell<u32> = const { Cell::new(u32::MAX) };
    static STACK_TOP: Cell<usize> = const { Cell::new(0) };
}

/// Takes `ticks` of the running evaluation's fuel, and checks how deep the stack is: the interpreter recurses between
/// any two charges by a few frames only. Far down the stack a step costs more, because each value that it gives is
/// handed up through as many iterators.
pub(super) fn charge(ticks: u64) {
    let top = STACK_TOP.get();
    let stack = if top == 0 { 0 } else { top.saturating_sub(stack_pointer()) };
    if stack > STACK_BYTES {
        stop(Stop::Stack);
    }
    let ticks = ticks.saturating_add(stack.saturating_sub(SHALLOW_BYTES) as u64 / 1024);
    let left = FUEL.get();
    if left < ticks {
        FUEL.set(0);
        stop(Stop::Fuel);
    }
    FUEL.set(left - ticks);
}

/// Charges for looking at or copying so many bytes.
pub(super) fn charge_bytes(bytes: usize) {
    charge(1 + bytes as u64 / 16);
}

/// The nesting of a container around values nested `inner` deep; stops the evaluation where that is too much.
pub(super) fn nest(inner: u32) -> u32 {
    let depth = inner.saturating_add(1);
    if depth > DEPTH.get() {
        stop(Stop::Depth);
    }
    depth
}

/// Runs `work` under `limits`, and leaves in them the fuel that it did not take. The error is the limit that stopped it, or `None` when the interpreter itself broke.
pub(super) fn metered<T>(limits: &mut Limits, work: impl FnOnce() -> T) -> Result<T, Option<Stop>> {
    let outer = (FUEL.get(), DEPTH.get(), STACK_TOP.get());
    FUEL.set(limits.fuel);
    DEPTH.set(u32::try_from(limits.depth).unwrap_or(u32::MAX));
    STACK_TOP.set(stack_pointer());
    let outcome = catch_unwind(AssertUnwindSafe(work));
    limits.fuel = FUEL.get();
    FUEL.set(outer.0);
    DEPTH.set(outer.1);
    STACK_TOP.set(outer.2);
    outcome.map_err(|payload: Box<dyn Any + Send>| payload.downcast_ref::<Stop>().copied())
}

/// Where the stack stands, roughly. Only its distance to another such value means anything.
#[inline(never)]
fn stack_pointer() -> usize {
    let here = 0_u8;
    std::ptr::from_ref(&here).addr()
}

fn stop(why: Stop) -> ! {
    resume_unwind(Box::new(why))
}
