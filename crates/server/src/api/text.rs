//! Texts with a rule, as types: parsed once where they enter, and behind the door never a bare string.

/// Declares a text with a rule: reads, writes and derefs as text.
macro_rules! checked_text {
    ($($(#[$meta:meta])* $name:ident: $rule:expr, $expected:literal;)*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, ::serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl ::std::ops::Deref for $name {
            type Target = str;
            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as ::serde::Deserialize>::deserialize(deserializer)?;
                let rule: fn(&str) -> bool = $rule;
                if rule(&text) { Ok(Self(text)) } else { Err(<D::Error as ::serde::de::Error>::custom($expected)) }
            }
        }
    )*};
}

pub(crate) use checked_text;
