//! The words of a search for runs.

use tidemill_protocol::{RunState, check_label_name};

/// The states that a word stands for: one, `live` or `ended`.
///
/// # Errors
/// The word is unknown; what is known is said.
pub fn states_of(word: &str) -> Result<Vec<RunState>, String> {
    let all = RunState::ALL.into_iter();
    match word {
        "live" => Ok(all.filter(|state| !state.is_terminal()).collect()),
        "ended" => Ok(all.filter(|state| state.is_terminal()).collect()),
        word => RunState::parse(word).map(|state| vec![state]).ok_or_else(|| {
            let known = RunState::ALL.map(RunState::as_str).join(", ");
            format!(
                "the state {word:?} is unknown; known are {known}, and live and ended for several of them"
            )
        }),
    }
}

/// Splits labels at their commas; a comma after a backslash belongs to a value.
#[must_use]
pub fn split_labels(text: &str) -> Vec<String> {
    let (mut labels, mut label, mut chars) = (Vec::new(), String::new(), text.chars().peekable());
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.next_if_eq(&',').is_some() => label.push(','),
            ',' => labels.push(std::mem::take(&mut label)),
            c => label.push(c),
        }
    }
    labels.push(label);
    labels
}

/// A label, `name=value`.
///
/// # Errors
/// It is not of this form, or no label can have this name.
pub fn label_of(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or_else(|| format!("the label {text:?} is not of the form name=value"))?;
    check_label_name(name).map_err(|error| error.to_string())?;
    if value.is_empty() {
        return Err(format!("the label {name:?} has no value: write {name}=value"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{label_of, split_labels, states_of};
    use tidemill_protocol::RunState;

    #[test]
    fn words_stand_for_states_and_unknown_ones_are_told() {
        assert_eq!(states_of("failed"), Ok(vec![RunState::Failed]));
        assert!(states_of("live").unwrap().contains(&RunState::Running));
        assert!(states_of("ended").unwrap().iter().all(|state| state.is_terminal()));
        assert!(states_of("done").unwrap_err().contains("succeeded"));
    }

    #[test]
    fn labels_are_split_at_commas_and_keep_those_that_are_theirs() {
        assert_eq!(split_labels(r"a=b,c=d\,e"), ["a=b", "c=d,e"]);
        assert_eq!(label_of("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        for bad in ["a", "=b", "a=", "a b=c", ""] {
            assert!(label_of(bad).is_err(), "{bad:?}");
        }
    }
}
