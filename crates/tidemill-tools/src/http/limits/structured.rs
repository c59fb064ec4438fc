//! Lists of structured fields (RFC 9651), read tolerantly.
//!
//! A strict reader refuses a whole field for one bad byte, and what services send is mostly older than the RFC or beside
//! it: names without quotes, partition keys that are no Base64, dictionaries where a list belongs. So this one only finds
//! where members and parameters begin and end; each value is judged by who reads it.

/// The most members of a field, and parameters of a member, that are looked at.
const MAX_MEMBERS: usize = 16;

/// One member of a list with its parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member<'a> {
    /// The item as it is written, quotes included.
    pub(super) item: &'a str,
    parameters: &'a str,
}

impl<'a> Member<'a> {
    /// The value of a parameter, without quotes.
    pub(super) fn parameter(&self, key: &str) -> Option<&'a str> {
        split(self.parameters, b';')
            .filter_map(|parameter| parameter.split_once('='))
            .find(|(known, _)| known.trim() == key)
            .map(|(_, value)| unquote(value.trim()))
    }

    /// Key and value, when the member is one of a dictionary.
    pub(super) fn entry(&self) -> Option<(&'a str, &'a str)> {
        let (key, value) = self.item.split_once('=')?;
        let is_key = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        is_key.then(|| (key, unquote(value.trim())))
    }
}

/// The members of a list or dictionary.
pub(super) fn members(text: &str) -> impl Iterator<Item = Member<'_>> {
    split(text, b',').map(|member| {
        let (item, parameters) = cut(member, b';');
        Member { item: item.trim(), parameters }
    })
}

/// Without the quotes of a string; escapes stay, for only names are compared.
pub(super) fn unquote(text: &str) -> &str {
    text.strip_prefix('"').and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// The parts between separators that stand outside quotes; empty ones are left out.
fn split(text: &str, separator: u8) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        (!rest.is_empty()).then(|| {
            let (part, after) = cut(rest, separator);
            rest = after;
            part
        })
    })
    .take(MAX_MEMBERS)
    .filter(|part| !part.trim().is_empty())
}

/// What stands before the first separator outside quotes, and what after it.
fn cut(text: &str, separator: u8) -> (&str, &str) {
    let (mut is_quoted, mut is_escaped) = (false, false);
    let end = text.bytes().position(|byte| {
        if std::mem::take(&mut is_escaped) {
            return false;
        }
        match byte {
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            _ => return !is_quoted && byte == separator,
        }
        false
    });
    end.and_then(|end| Some((text.get(..end)?, text.get(end + 1..)?))).unwrap_or((text, ""))
}

#[cfg(test)]
mod tests {
    use super::members;

    #[test]
    fn members_end_outside_quotes_only() {
        let read: Vec<_> = members(r#" "a,b;c=\"1\"" ;q=1; w="6;0", token;r=2 ,, 5 "#)
            .map(|member| (member.item, member.parameter("q"), member.parameter("w"), member.parameter("r")))
            .collect();
        assert_eq!(
            read,
            [
                (r#""a,b;c=\"1\"""#, Some("1"), Some("6;0"), None),
                ("token", None, None, Some("2")),
                ("5", None, None, None)
            ]
        );
    }

    #[test]
    fn a_dictionary_is_told_from_a_list() {
        let entries: Vec<_> = members(r#"limit=10, "a=b";r=1, =3, reset="7""#).map(|m| m.entry()).collect();
        assert_eq!(entries, [Some(("limit", "10")), None, None, Some(("reset", "7"))]);
    }

    #[test]
    fn a_field_without_end_is_read_in_bounds() {
        assert_eq!(members(&"a,".repeat(10_000)).count(), 16);
        assert_eq!(members(&",".repeat(10_000)).count(), 0);
        assert_eq!(members("\"open, ; never closed").count(), 1);
    }
}
