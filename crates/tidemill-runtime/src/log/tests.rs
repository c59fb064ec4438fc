use std::sync::{Arc, Mutex, PoisonError};

use super::*;

#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn logged(settings: &Settings, terminal: bool, events: impl FnOnce()) -> String {
    let buffer = Buffer::default();
    let writer = buffer.clone();
    let subscriber =
        subscriber(settings, terminal, move || writer.clone()).map_err(|error| error.to_string());
    match subscriber {
        Ok(subscriber) => tracing::subscriber::with_default(subscriber, events),
        Err(error) => return error,
    }
    let bytes = buffer.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
    String::from_utf8_lossy(&bytes).into_owned()
}

const HOSTILE: &str = "x\n2030-01-01 ERROR forged\u{1b}[2J\r\u{7}";

#[test]
fn json_lines_hold_time_level_target_message_and_fields() {
    let settings = Settings { format: Format::Json, ..Settings::default() };
    let text = logged(&settings, true, || tracing::info!(queue = "default", jobs = 3, "claimed {HOSTILE}"));
    assert_eq!(text.lines().count(), 1, "{text}");
    let line: serde_json::Value = serde_json::from_str(&text).expect("one JSON object");
    assert_eq!(line["level"], "INFO");
    assert_eq!(line["target"], "tidemill_runtime::log::tests");
    assert_eq!(line["message"], format!("claimed {HOSTILE}"));
    assert_eq!(line["queue"], "default");
    assert_eq!(line["jobs"], 3);
    assert!(line["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')));
}

#[test]
fn no_value_forges_a_pretty_line_or_drives_the_terminal() {
    let settings = Settings { format: Format::Pretty, ..Settings::default() };
    let text = logged(&settings, false, || {
        let span = tracing::info_span!("job", id = %HOSTILE);
        let _entered = span.enter();
        tracing::warn!(reason = %HOSTILE, quoted = HOSTILE, "{HOSTILE}");
    });
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(!text.trim_end().contains(char::is_control), "{text:?}");
    assert!(text.contains("WARN") && text.contains("reason=x\\n2030"), "{text}");
}

#[test]
fn auto_is_pretty_on_a_terminal_and_json_elsewhere() {
    let settings = Settings::default();
    assert!(logged(&settings, false, || tracing::info!("hello")).starts_with('{'));
    let pretty = logged(&settings, true, || tracing::info!("hello"));
    assert!(pretty.contains("hello") && pretty.contains('\u{1b}') && !pretty.starts_with('{'), "{pretty}");
}

#[test]
fn the_level_decides_what_is_logged_for_each_target() {
    let settings = Settings { level: "warn,tidemill_runtime::log=debug".to_owned(), format: Format::Json };
    let text = logged(&settings, false, || {
        tracing::debug!("near");
        tracing::info!(target: "elsewhere", "far");
    });
    assert!(text.contains("near") && !text.contains("far"), "{text}");
}

#[test]
fn a_level_that_is_none_is_refused_by_name() {
    for (level, directive) in [("inof", "inof"), ("info,tidemill=loud", "tidemill=loud"), ("info,,", "")] {
        let settings = Settings { level: level.to_owned(), format: Format::Auto };
        assert_eq!(settings.check(), Err(LogError::Level { directive: directive.to_owned() }));
    }
    assert_eq!(Settings::default().check(), Ok(()));
}
