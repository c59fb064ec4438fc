//! The pages that other programs rely on, compared with what they describe.

use std::collections::BTreeSet;

const KEYS: &str = include_str!("../../src/keys.rs");
const KEYS_PAGE: &str = include_str!("../../../../docs/redis-keys.md");
const PROTOCOL_PAGE: &str = include_str!("../../../../docs/protocol.md");
const REGISTER: &str = include_str!("../../lua/register.lua");

/// A key as `keys.rs` writes it, and the type that its comment promises.
struct Key {
    pattern: String,
    kind: String,
}

/// Every function of `Keys` whose comment begins with a type.
fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    for part in KEYS.split("    /// ").skip(1) {
        let Some((kind, _)) = part.split_once(':') else { continue };
        if !["Stream", "Sorted set", "Hash", "String", "Set"].contains(&kind) {
            continue;
        }
        let (_, body) = part.split_once("pub fn ").unwrap();
        let body = &body[..body.find("\n    }").unwrap()];
        let quoted = body.split('"').nth(1);
        let pattern = match quoted {
            Some(text) if body.contains("self.key(") => text.to_owned(),
            Some(text) if body.contains("self.of(") => {
                let argument = body.rsplit_once(", ").unwrap().1.trim_end_matches(')');
                format!("{text}<{argument}>")
            }
            Some(text) => text.trim_start_matches("{}").replace('{', "<").replace('}', ">"),
            // `stream` is `jobs` or `runs`
            None => continue,
        };
        keys.push(Key { pattern, kind: kind.to_lowercase() });
    }
    keys
}

/// The first two columns of the page's table of keys.
fn rows() -> Vec<(&'static str, &'static str)> {
    let (table, _) = KEYS_PAGE.split_once("\n## ").unwrap();
    let cells = table.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    cells.map(|(pattern, rest)| (pattern, rest.split(" | ").next().unwrap())).collect()
}

#[test]
fn every_key_is_on_its_page_with_its_type() {
    let keys = keys();
    assert!(keys.len() >= 21, "only {} keys were found in keys.rs", keys.len());
    let rows = rows();
    for key in &keys {
        let row = rows.iter().find(|(pattern, _)| *pattern == key.pattern);
        assert_eq!(row.map(|(_, kind)| *kind), Some(&*key.kind), "{} in docs/redis-keys.md", key.pattern);
    }
    for (pattern, _) in rows {
        assert!(keys.iter().any(|key| key.pattern == pattern), "{pattern} is no key of keys.rs");
    }
}

/// What the last function of a Lua file unpacks first from its keys or arguments.
fn fixed(lua: &str, what: &str) -> Vec<String> {
    let body = &lua[lua.rfind("\nlocal function").map_or(0, |at| at + 1)..];
    let line = body
        .lines()
        .find(|line| line.contains(&format!("= unpack({what}")) || line.contains(&format!("= {what}[1]")));
    let names = line
        .and_then(|line| line.split_once('='))
        .map(|(names, _)| names.trim().trim_start_matches("local "));
    names.map(|names| names.split(',').map(|name| name.trim().to_owned()).collect()).unwrap_or_default()
}

/// A function's line of keys or arguments on the page.
fn documented(function: &str, what: &str) -> Vec<String> {
    let Some((_, section)) = PROTOCOL_PAGE.split_once(&format!("#### `{function}`")) else {
        return vec![format!("docs/protocol.md has no section of {function}")];
    };
    let section = section.split("####").next().unwrap();
    let line = section.lines().find_map(|line| line.strip_prefix(what));
    line.map(|line| line.split(',').map(|name| name.trim().to_owned()).collect()).unwrap_or_default()
}

#[test]
fn every_function_is_on_the_protocol_page_with_its_keys_and_arguments() {
    let published: BTreeSet<&str> =
        REGISTER.split("function_name = '").skip(1).filter_map(|part| part.split('\'').next()).collect();
    assert!(published.len() >= 20, "{published:?}");
    for function in &published {
        assert!(PROTOCOL_PAGE.contains(&format!("#### `{function}`")), "docs/protocol.md lacks {function}");
        let file = format!("{}/lua/{}.lua", env!("CARGO_MANIFEST_DIR"), function.trim_start_matches("tm1_"));
        let Ok(lua) = std::fs::read_to_string(&file) else {
            assert_eq!(*function, "tm1_version", "{file} is missing");
            continue;
        };
        for (what, heading) in [("keys", "KEYS  "), ("args", "ARGV  ")] {
            let (wanted, found) = (fixed(&lua, what), documented(function, heading));
            assert!(!wanted.is_empty(), "no {what} found in {file}");
            let begins = found.get(..wanted.len()).unwrap_or(&found);
            assert_eq!(begins, wanted, "{what} of {function} in docs/protocol.md");
            // what follows the fixed ones is repeated, and stands in brackets
            let rest = found.get(wanted.len()).is_none_or(|next| next.starts_with('[') || next == "steps");
            assert!(rest, "{what} of {function}: {found:?} has more fixed names than the Lua: {wanted:?}");
        }
    }
    let sections = PROTOCOL_PAGE.split("#### `").skip(1).filter_map(|part| part.split('`').next());
    for section in sections {
        assert!(published.contains(section), "docs/protocol.md describes {section}, which is not published");
    }
}

#[test]
fn every_field_of_the_contract_is_on_the_protocol_page() {
    for field in tidemill_protocol::FIELDS {
        assert!(PROTOCOL_PAGE.contains(&format!("`{field}`")), "{field}");
    }
    let limit = format!("more than {} fields", tidemill_protocol::MAX_FIELDS);
    assert!(PROTOCOL_PAGE.contains(&limit), "{limit}");
    assert_eq!(tidemill_protocol::DEFAULT_MAX_INPUT_BYTES, 1 << 20, "the page says 1 MiB");
}
