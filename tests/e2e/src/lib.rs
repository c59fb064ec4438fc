//! The engines together: see `tests/it`.
