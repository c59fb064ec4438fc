//! What is checked of a template's tokens before it is parsed and compiled.
//!
//! The compiler walks an expression recursively and computes constant ones while it compiles: a very long expression would
//! exhaust the stack, and `'x' * 100000000` the memory, before any budget counts.

use minijinja::machinery::{Token, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

/// The most tokens between `{{` and `}}` or `{%` and `%}`.
const MAX_TAG_TOKENS: usize = 256;
/// The deepest that statements may stand in each other.
const MAX_NESTED_BLOCKS: usize = 64;
/// Words that are no names.
const KEYWORDS: [&str; 15] = [
    "true", "false", "none", "True", "False", "None", "and", "or", "not", "in", "is", "if", "else", "elif",
    "set",
];

/// Refuses what cannot be compiled safely; what is not Jinja at all is left to the parser.
pub(super) fn check(source: &str) -> Result<(), Error> {
    let mut tag = Vec::new();
    // For every open block how many levels it stands for: an `elif` is an `if` inside of an `else`.
    let mut open: Vec<usize> = Vec::new();
    for token in tokenize(source, false, SyntaxConfig::default()) {
        let Ok((token, span)) = token else { return Ok(()) };
        match token {
            Token::TemplateData(_) => {}
            Token::VariableStart | Token::BlockStart => tag.clear(),
            Token::VariableEnd | Token::BlockEnd => {
                if has_constant_repetition(&tag) {
                    return Err(refused("text is not multiplied; repeat it with a `for`", span.start_line));
                }
                follow(&tag, &mut open);
                if open.iter().sum::<usize>() > MAX_NESTED_BLOCKS {
                    return Err(refused("statements stand in each other too deep", span.start_line));
                }
                tag.clear();
            }
            token => {
                tag.push(token);
                if tag.len() > MAX_TAG_TOKENS {
                    return Err(refused("an expression is too long; split it with `set`", span.start_line));
                }
            }
        }
    }
    Ok(())
}

/// Notes which blocks a tag opens or closes.
fn follow(tag: &[Token<'_>], open: &mut Vec<usize>) {
    match tag.first() {
        // `{% set x = … %}` opens nothing.
        Some(Token::Ident("set")) if tag.iter().any(|token| matches!(token, Token::Assign)) => {}
        Some(Token::Ident("for" | "if" | "with" | "filter" | "autoescape" | "set")) => open.push(1),
        Some(Token::Ident("elif")) => {
            if let Some(levels) = open.last_mut() {
                *levels += 1;
            }
        }
        Some(Token::Ident(word)) if word.starts_with("end") => {
            open.pop();
        }
        _ => {}
    }
}

fn refused(why: &str, line: u16) -> Error {
    Error::new(ErrorKind::SyntaxError, format!("{why} (line {line})"))
}

/// Whether a constant that is not a number stands beside a `*`.
fn has_constant_repetition(tag: &[Token<'_>]) -> bool {
    tag.iter().enumerate().any(|(index, token)| {
        matches!(token, Token::Mul) && {
            let (before, after) = tag.split_at(index);
            is_text(before.iter().rev(), Reading::Back) || is_text(after.iter().skip(1), Reading::On)
        }
    })
}

/// In which direction an operand is read from its `*`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    Back,
    On,
}

/// Whether the operand beside a `*` is made of constants of which one is not a number. What holds a name is not computed by
/// the compiler, and neither is an index or a call.
fn is_text<'a>(tokens: impl Iterator<Item = &'a Token<'a>>, reading: Reading) -> bool {
    let mut tokens = tokens.peekable();
    let (mut depth, mut holds_text) = (0_usize, false);
    for token in tokens.by_ref() {
        match token {
            Token::Ident(name) if !KEYWORDS.contains(name) => return false,
            Token::Str(_) | Token::String(_) => holds_text = true,
            Token::BracketOpen | Token::BraceOpen | Token::BracketClose | Token::BraceClose => {
                holds_text = true;
            }
            _ => {}
        }
        let opens = matches!(token, Token::ParenOpen | Token::BracketOpen | Token::BraceOpen);
        let closes = matches!(token, Token::ParenClose | Token::BracketClose | Token::BraceClose);
        if opens || closes {
            depth = if opens == (reading == Reading::On) { depth + 1 } else { depth.saturating_sub(1) };
        }
        // A sign stands between the `*` and its operand.
        if depth == 0 && !matches!(token, Token::Minus | Token::Plus) {
            break;
        }
    }
    let is_indexed = reading == Reading::Back
        && tokens.peek().is_some_and(|token| match token {
            Token::Ident(name) => !KEYWORDS.contains(name),
            Token::Str(_)
            | Token::String(_)
            | Token::ParenClose
            | Token::BracketClose
            | Token::BraceClose => true,
            _ => false,
        });
    holds_text && !is_indexed
}
