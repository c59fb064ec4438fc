//! Settings in force as YAML that can be read back, with their origins as comments.

use serde_json::Value as Json;

use super::{
    node::Node,
    origin::Origin,
    secret::{HIDDEN, is_reference, is_secret_key, is_secret_path, redact_urls},
};

pub(super) fn print(settings: &Json, tree: &Node) -> String {
    let mut printer = Printer { tree, path: Vec::new(), out: String::new() };
    printer.children(settings, 0);
    printer.out
}

struct Printer<'a> {
    tree: &'a Node,
    path: Vec<String>,
    out: String,
}

impl Printer<'_> {
    fn children(&mut self, value: &Json, depth: usize) {
        let Json::Object(members) = value else { return };
        for (key, member) in members {
            self.path.push(key.clone());
            self.out.push_str(&"  ".repeat(depth));
            self.out.push_str(&scalar(key));
            self.out.push(':');
            match member {
                Json::Object(inner) if !inner.is_empty() => {
                    self.out.push('\n');
                    self.children(member, depth + 1);
                }
                leaf => {
                    let hidden = is_secret_path(&self.path);
                    self.out.push(' ');
                    self.out.push_str(&flow(leaf, hidden));
                    self.out.push_str("  # ");
                    self.out.push_str(&self.origin());
                    self.out.push('\n');
                }
            }
            self.path.pop();
        }
    }

    fn origin(&self) -> String {
        let origin = match self.tree.get(&self.path) {
            Some(_) => self.tree.origin_of(&self.path),
            None => Origin::Default,
        };
        origin.to_string().replace(|c: char| c.is_control(), "?")
    }
}

/// A leaf in one line. `hidden` is inherited: what stands under a secret key is secret.
fn flow(value: &Json, hidden: bool) -> String {
    match value {
        Json::Null => "null".to_owned(),
        Json::String(text) if hidden && !is_reference(text) => scalar(HIDDEN),
        Json::String(text) => scalar(&redact_urls(text)),
        Json::Bool(_) | Json::Number(_) if hidden => scalar(HIDDEN),
        Json::Bool(flag) => flag.to_string(),
        Json::Number(number) => number.to_string(),
        Json::Array(values) => {
            let inner: Vec<_> = values.iter().map(|value| flow(value, hidden)).collect();
            format!("[{}]", inner.join(", "))
        }
        Json::Object(members) => {
            let member = |(key, value): (&String, &Json)| {
                format!("{}: {}", scalar(key), flow(value, hidden || is_secret_key(key)))
            };
            let inner: Vec<_> = members.iter().map(member).collect();
            format!("{{{}}}", inner.join(", "))
        }
    }
}

/// A text bare where YAML reads it back as a text, else as a JSON string, which YAML reads too.
fn scalar(text: &str) -> String {
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "_./-".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_ascii_lowercase().as_str());
    if bare { text.to_owned() } else { Json::String(text.to_owned()).to_string() }
}
