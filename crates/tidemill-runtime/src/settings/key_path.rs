//! Keys written with dots: `worker.max_parallel`, `tools."shop.hold".timeout_ms`.

/// The segments of a dotted key; never empty, nor is any segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyPath(Vec<String>);

impl KeyPath {
    /// Splits at dots; a segment with dots of its own stands in double quotes.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut segments = vec![String::new()];
        let mut quoted = false;
        for character in text.chars() {
            match (character, quoted) {
                ('"', _) => quoted = !quoted,
                ('.', false) => segments.push(String::new()),
                (other, _) => {
                    if let Some(segment) = segments.last_mut() {
                        segment.push(other);
                    }
                }
            }
        }
        if quoted {
            return Err(format!("`{text}` lacks its closing quote"));
        }
        if segments.iter().any(String::is_empty) {
            return Err(format!("`{text}` is no key: write it as in `worker.max_parallel`"));
        }
        Ok(Self(segments))
    }

    pub(crate) fn segments(&self) -> &[String] {
        &self.0
    }

    pub(crate) fn into_segments(self) -> Vec<String> {
        self.0
    }
}

/// The dotted form of segments, quoted where needed.
pub(crate) fn dotted(segments: &[String]) -> String {
    let quote = |segment: &String| {
        if segment.contains('.') { format!("\"{segment}\"") } else { segment.clone() }
    };
    segments.iter().map(quote).collect::<Vec<_>>().join(".")
}
