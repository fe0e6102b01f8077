//! Form bodies of query services: `Action`, `Version`, lists as `Name.member.N`, structures nested with dots.
//!
//! A form has no types, so [`Form`] is read leniently by serde: numbers and truth values as text, an empty text as an
//! empty list (how botocore writes one). Unknown members stay errors of the input type.

use std::collections::BTreeMap;

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};

/// Most parameters of one form; the largest real one, a simulation with contexts, has some hundred.
const MAX_PARAMETERS: usize = 2048;
/// Most parts of a parameter's name.
const MAX_DEPTH: usize = 16;
/// Highest list number.
const MAX_INDEX: usize = 1024;

/// A form, with the two parameters that every call has taken out.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Form {
    /// The operation's name.
    pub(crate) action: String,
    /// The API version; empty when absent.
    pub(crate) version: String,
    root: Node,
}

/// A part of a form.
#[derive(Debug, Clone, PartialEq)]
enum Node {
    Text(String),
    List(BTreeMap<usize, Node>),
    Members(BTreeMap<String, Node>),
}

/// Why a form is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FormError(String);

impl de::Error for FormError {
    fn custom<T: std::fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

impl Form {
    /// Reads a form body or query string.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, FormError> {
        let refuse = |why: &str| Err(FormError(why.to_owned()));
        if !body.is_ascii() {
            return refuse("a form is percent-encoded ASCII");
        }
        let mut root = BTreeMap::new();
        let (mut action, mut version) = (None, None);
        for (number, pair) in body.split(|b| *b == b'&').filter(|pair| !pair.is_empty()).enumerate() {
            if number >= MAX_PARAMETERS {
                return refuse("too many parameters");
            }
            let at = pair.iter().position(|b| *b == b'=');
            let (name, value) = at.and_then(|at| pair.split_at_checked(at)).unwrap_or((pair, b"="));
            let (name, value) = (decode(name)?, decode(value.get(1..).unwrap_or_default())?);
            let twice = match name.as_str() {
                "Action" => action.replace(value).is_some(),
                "Version" => version.replace(value).is_some(),
                _ if name.starts_with("X-Amz-") => false,
                _ => {
                    insert(&mut root, &name, value)?;
                    false
                }
            };
            if twice {
                return refuse("Action and Version may stand only once");
            }
        }
        let Some(action) = action else { return refuse("the parameter Action is missing") };
        Ok(Self { action, version: version.unwrap_or_default(), root: Node::Members(root) })
    }

    /// Reads parts that are numbered without `member`, as ec2 has them (`Filter.1.Value.2`), as lists.
    pub(crate) fn with_plain_lists(mut self) -> Result<Self, FormError> {
        self.root = self.root.with_plain_lists()?;
        Ok(self)
    }

    /// Reads the parameters as an operation's input.
    pub(crate) fn into_input<T: DeserializeOwned>(self) -> Result<T, FormError> {
        T::deserialize(self.root)
    }
}

/// Decodes `+` and `%XX`; the result must be UTF-8.
fn decode(text: &[u8]) -> Result<String, FormError> {
    let blanks: Vec<u8> = text.iter().map(|b| if *b == b'+' { b' ' } else { *b }).collect();
    let decoded: Vec<u8> = percent_encoding::percent_decode(&blanks).collect();
    String::from_utf8(decoded).map_err(|_| FormError("a parameter is not UTF-8".to_owned()))
}

fn insert(root: &mut BTreeMap<String, Node>, name: &str, value: String) -> Result<(), FormError> {
    let shown = || name.chars().take(64).flat_map(char::escape_default).collect::<String>();
    let clash = || FormError(format!("the parameter `{}` stands twice or as two different things", shown()));
    let mut parts = name.split('.').peekable();
    let Some(first) = parts.next().filter(|_| name.split('.').count() <= MAX_DEPTH) else {
        return Err(FormError(format!("the parameter `{}` is nested too deep", shown())));
    };
    let mut vacant = false;
    let mut node = root.entry(first.to_owned()).or_insert_with(|| {
        vacant = true;
        Node::Text(String::new())
    });
    while let Some(part) = parts.next() {
        let number = match parts.peek() {
            Some(number) if part == "member" => Some(
                number
                    .parse()
                    .ok()
                    .filter(|n| (1..=MAX_INDEX).contains(n))
                    .ok_or_else(|| FormError(format!("`{}` needs a list number from 1 to {MAX_INDEX}", shown())))?,
            ),
            _ => None,
        };
        if number.is_some() {
            parts.next();
        }
        if vacant {
            *node = if number.is_some() { Node::List(BTreeMap::new()) } else { Node::Members(BTreeMap::new()) };
        }
        vacant = false;
        let fresh = || Node::Text(String::new());
        node = match (node, number) {
            (Node::List(list), Some(number)) => list.entry(number).or_insert_with(|| {
                vacant = true;
                fresh()
            }),
            (Node::Members(members), None) => members.entry(part.to_owned()).or_insert_with(|| {
                vacant = true;
                fresh()
            }),
            _ => return Err(clash()),
        };
    }
    if !vacant {
        return Err(clash());
    }
    *node = Node::Text(value);
    Ok(())
}

impl<'de> IntoDeserializer<'de, FormError> for Node {
    type Deserializer = Self;
    fn into_deserializer(self) -> Self {
        self
    }
}

/// Reads a number or truth value from its text.
macro_rules! from_text {
    ($($method:ident $visit:ident $type:ty, $what:literal;)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
            match &self {
                Node::Text(text) => match text.parse::<$type>() {
                    Ok(value) => visitor.$visit(value),
                    Err(_) => Err(de::Error::invalid_value(de::Unexpected::Str(text), &$what)),
                },
                _ => Err(de::Error::invalid_type(self.unexpected(), &$what)),
            }
        }
    )*};
}

impl Node {
    /// The nesting is bounded by [`MAX_DEPTH`].
    fn with_plain_lists(self) -> Result<Self, FormError> {
        let Self::Members(members) = self else { return Ok(self) };
        let number = |name: &str| name.parse::<usize>().ok().filter(|n| (1..=MAX_INDEX).contains(n));
        if members.keys().all(|name| number(name).is_some()) && !members.is_empty() {
            let items = members.into_iter().filter_map(|(name, item)| Some((number(&name)?, item)));
            let items = items.map(|(number, item)| Ok((number, item.with_plain_lists()?)));
            return Ok(Self::List(items.collect::<Result<_, FormError>>()?));
        }
        if members.keys().any(|name| name.starts_with(|first: char| first.is_ascii_digit())) {
            return Err(FormError(format!("a list is numbered from 1 to {MAX_INDEX}")));
        }
        let members = members.into_iter().map(|(name, member)| Ok((name, member.with_plain_lists()?)));
        Ok(Self::Members(members.collect::<Result<_, FormError>>()?))
    }

    fn unexpected(&self) -> de::Unexpected<'_> {
        match self {
            Self::Text(text) => de::Unexpected::Str(text),
            Self::List(_) => de::Unexpected::Seq,
            Self::Members(_) => de::Unexpected::Map,
        }
    }
}

impl<'de> de::Deserializer<'de> for Node {
    type Error = FormError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
        match self {
            Self::Text(text) => visitor.visit_string(text),
            Self::List(list) => visitor.visit_seq(SeqDeserializer::new(list.into_values())),
            Self::Members(members) => visitor.visit_map(MapDeserializer::new(members.into_iter())),
        }
    }

    from_text! {
        deserialize_bool visit_bool bool, "true or false";
        deserialize_i8 visit_i8 i8, "a number";
        deserialize_i16 visit_i16 i16, "a number";
        deserialize_i32 visit_i32 i32, "a number";
        deserialize_i64 visit_i64 i64, "a number";
        deserialize_u8 visit_u8 u8, "a number";
        deserialize_u16 visit_u16 u16, "a number";
        deserialize_u32 visit_u32 u32, "a number";
        deserialize_u64 visit_u64 u64, "a number";
        deserialize_f32 visit_f32 f32, "a number";
        deserialize_f64 visit_f64 f64, "a number";
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
        visitor.visit_some(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, FormError> {
        match self {
            Self::Text(text) if text.is_empty() => {
                visitor.visit_seq(SeqDeserializer::<_, FormError>::new(std::iter::empty::<Self>()))
            }
            other => other.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, FormError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, FormError> {
        match self {
            Self::Text(text) => de::Deserializer::deserialize_enum(text.into_deserializer(), name, variants, visitor),
            other => Err(de::Error::invalid_type(other.unexpected(), &"one of the listed words")),
        }
    }

    serde::forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", deny_unknown_fields)]
    struct Input {
        user_name: Option<String>,
        max_items: Option<u16>,
        only_attached: Option<bool>,
        #[serde(default)]
        tags: Vec<Tag>,
        #[serde(default)]
        action_names: Vec<String>,
        status: Option<Status>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(rename_all = "PascalCase", deny_unknown_fields)]
    struct Tag {
        key: String,
        value: String,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    enum Status {
        Active,
        Inactive,
    }

    fn read(body: &str) -> Result<Input, FormError> {
        Form::parse(body.as_bytes())?.into_input()
    }

    #[test]
    fn lists_structures_and_scalars_are_read_from_text() {
        let input = read(
            "Action=A&Version=2010-05-08&UserName=%EB%AC%B8+a%2Bb&MaxItems=10&OnlyAttached=true&Status=Inactive\
             &Tags.member.2.Key=b&Tags.member.2.Value=&Tags.member.1.Key=a&Tags.member.1.Value=x%3Dy\
             &ActionNames.member.1=iam%3A*",
        )
        .unwrap();
        assert_eq!(input.user_name.as_deref(), Some("문 a+b"));
        assert_eq!(
            (input.max_items, input.only_attached, input.status),
            (Some(10), Some(true), Some(Status::Inactive))
        );
        let tag = |key: &str, value: &str| Tag { key: key.into(), value: value.into() };
        assert_eq!(input.tags, [tag("a", "x=y"), tag("b", "")]);
        assert_eq!(input.action_names, ["iam:*"]);
    }

    #[test]
    fn an_empty_text_is_an_empty_list_and_an_empty_string() {
        let input = read("Action=A&UserName=&Tags=").unwrap();
        assert_eq!((input.user_name.as_deref(), input.tags.len()), (Some(""), 0));
    }

    #[test]
    fn what_does_not_fit_says_why() {
        for (body, part) in [
            ("", "Action is missing"),
            ("UserName=a", "Action is missing"),
            ("Action=A&Action=B", "only once"),
            ("Action=A&UserName=a&UserName=b", "stands twice"),
            ("Action=A&UserName.member.1=a", "expected a string"),
            ("Action=A&Tags.member.1.Key=a", "missing field `Value`"),
            ("Action=A&Tags.member.0.Key=a", "list number"),
            ("Action=A&Tags.member.99999.Key=a", "list number"),
            ("Action=A&Tags.member.x=a", "list number"),
            ("Action=A&Tags=a&Tags.member.1.Key=b", "two different things"),
            ("Action=A&MaxItems=ten", "a number"),
            ("Action=A&MaxItems=70000", "a number"),
            ("Action=A&OnlyAttached=yes", "true or false"),
            ("Action=A&Status=Gone", "unknown variant"),
            ("Action=A&Usrname=a", "unknown field `Usrname`"),
            ("Action=A&a.b.c.d.e.f.g.h.i.j.k.l.m.n.o.p.q=1", "too deep"),
            ("Action=A&UserName=%FF", "UTF-8"),
            ("Action=A&UserName=문", "ASCII"),
        ] {
            let error = read(body).unwrap_err().to_string();
            assert!(error.contains(part), "{body}: {error}");
        }
        let many: String = (0..3000).map(|n| format!("&a{n}=1")).collect();
        assert!(read(&format!("Action=A{many}")).unwrap_err().to_string().contains("too many"));
    }

    #[test]
    fn lists_of_ec2_are_numbered_without_member() {
        let read = |body: &str| Form::parse(body.as_bytes())?.with_plain_lists()?.into_input::<Input>();
        let input = read("Action=A&ActionNames.2=b&ActionNames.1=a&Tags.1.Key=k&Tags.1.Value=v").unwrap();
        assert_eq!(input.action_names, ["a", "b"]);
        assert_eq!(input.tags, [Tag { key: "k".into(), value: "v".into() }]);
        for bad in
            ["Action=A&ActionNames.0=a", "Action=A&ActionNames.1025=a", "Action=A&ActionNames.1=a&ActionNames.b=c"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn no_body_makes_it_panic() {
        let seed =
            b"Action=CreateUser&Version=2010-05-08&UserName=a+b&Tags.member.1.Key=k&Tags.member.1.Value=%41&N.M.O=";
        crate::api::mutate::each(seed, 0x666f_726d, |body| {
            if let Ok(form) = Form::parse(body) {
                let _ = form.clone().into_input::<Input>();
                let _ = form.with_plain_lists().map(Form::into_input::<Input>);
            }
        });
    }
}
