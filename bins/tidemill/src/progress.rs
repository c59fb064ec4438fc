//! Bars for long work, on standard error, where a person looks at it.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::output::Output;

/// A bar that fills.
pub(crate) fn bar(output: Output, what: &'static str, length: u64) -> ProgressBar {
    dressed(output, what, ProgressBar::new(length), "{msg} {bar:30} {pos}/{len} {per_sec} {eta}")
}

/// A sign of life while the length is not known.
pub(crate) fn spinner(output: Output, what: &'static str) -> ProgressBar {
    let bar = dressed(output, what, ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}");
    if !bar.is_hidden() {
        bar.enable_steady_tick(Duration::from_millis(100));
    }
    bar
}

fn dressed(output: Output, what: &'static str, bar: ProgressBar, template: &str) -> ProgressBar {
    if output.is_json() {
        // a program reads: nothing may stand between its lines
        bar.set_draw_target(ProgressDrawTarget::hidden());
    }
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what)
}
