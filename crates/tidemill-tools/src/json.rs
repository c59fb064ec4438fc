//! What is asked of JSON text before it is parsed.

/// How deep the text nests, by its brackets outside of strings; the text need not be well-formed.
pub(crate) fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'"' => skip_string(&mut bytes),
            _ => {}
        }
    }
    deepest
}

fn skip_string(bytes: &mut std::slice::Iter<'_, u8>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::depth;

    #[test]
    fn brackets_count_outside_of_strings_only() {
        assert_eq!(depth(b"[[{}], []]"), 3);
        assert_eq!(depth(br#"{"a[[[\"[[": "}"}"#), 1);
        assert_eq!(depth(b"]]]["), 1);
        assert_eq!(depth(b"\"\\"), 0);
    }
}
