//! The built programs while things break: see `tests/it`.
