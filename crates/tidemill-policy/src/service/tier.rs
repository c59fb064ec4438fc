//! Names of tiers and templates.

use std::borrow::Cow;

/// The longest name of a tenant, user, model or credential inside a tier's name, in bytes.
const NAME_MAX_BYTES: usize = 128;

const fn fits(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'@' | b'+')
}

/// The name of a tenant, user, model or credential as it stands in a tier's name: cut to 128 bytes, bytes outside
/// `A-Z a-z 0-9 . _ - @ +` replaced by `_`.
#[must_use]
pub fn clean(name: &str) -> Cow<'_, str> {
    if name.len() <= NAME_MAX_BYTES && name.bytes().all(fits) {
        return Cow::Borrowed(name);
    }
    let bytes = name.bytes().take(NAME_MAX_BYTES);
    Cow::Owned(bytes.map(|byte| if fits(byte) { char::from(byte) } else { '_' }).collect())
}

/// The templates that a tier may have: the one of its own name, and the one of all its kind (`openai/tenant:*` of
/// `openai/tenant:acme`). The first goes before.
#[must_use]
pub fn template_names(tier: &str) -> (&str, Option<String>) {
    (tier, tier.rsplit_once(':').map(|(kind, _)| format!("{kind}:*")))
}

/// The name of a scope's tier or template inside a service.
pub(crate) fn scoped(service: &str, kind: &str, name: &str) -> String {
    let name = cleaned_or_any(name);
    format!("{service}/{kind}:{name}")
}

/// The template of a definition's own limits.
pub(crate) fn template(definition: &str) -> String {
    match definition.split_once(':') {
        Some((kind, name)) if kind.starts_with('@') => format!("{kind}:{}", cleaned_or_any(name)),
        _ => definition.to_owned(),
    }
}

/// `*` stays what it is: the template of all that are not named.
fn cleaned_or_any(name: &str) -> Cow<'_, str> {
    if name == "*" { Cow::Borrowed(name) } else { clean(name) }
}

#[cfg(test)]
mod tests {
    use super::{clean, scoped, template, template_names};

    #[test]
    fn whatever_a_tenant_is_called_its_tier_has_a_plain_name() {
        assert_eq!(clean("acme+eu@x.org"), "acme+eu@x.org");
        assert_eq!(clean("meta-llama/Llama 3:70b"), "meta-llama_Llama_3_70b");
        assert_eq!(clean("*"), "_");
        assert_eq!(clean("é"), "__");
        assert_eq!(clean(&"x".repeat(300)).len(), 128);
    }

    #[test]
    fn a_tier_may_have_the_template_of_its_kind() {
        assert_eq!(template_names("@pool"), ("@pool", None));
        assert_eq!(template_names("openai"), ("openai", None));
        assert_eq!(template_names("@tenant:acme"), ("@tenant:acme", Some("@tenant:*".to_owned())));
        assert_eq!(template_names("a/model:b").1.as_deref(), Some("a/model:*"));
    }

    #[test]
    fn a_template_has_the_name_of_its_tier() {
        assert_eq!(scoped("openai", "tenant", "*"), "openai/tenant:*");
        assert_eq!(scoped("openai", "model", "a/b"), "openai/model:a_b");
        assert_eq!(template("@tenant:a/b"), "@tenant:a_b");
        assert_eq!(template("@user:*"), "@user:*");
        assert_eq!(template("@pool"), "@pool");
    }
}
