//! Dicts as callers of the original write them: JSON, or a Python literal with single quotes, `None`, `True`, `False`.
//!
//! A reader of data, never of programs: no names, no operators, no calls. Size and depth are bounded, and every error
//! says where it is.

/// The longest text that is read, in bytes.
pub const MAX_BYTES: usize = 16 * 1024;
/// The deepest nesting that is read.
pub const MAX_DEPTH: usize = 8;

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum Literal {
    /// `None` or `null`.
    None,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A finite number with a fraction or an exponent.
    Float(f64),
    /// Text.
    Text(String),
    /// A list or a tuple.
    List(Vec<Literal>),
    /// A dict, in the order written. No key is there twice.
    Dict(Vec<(String, Literal)>),
}

impl Literal {
    /// What it is, for error texts.
    pub fn kind(&self) -> &'static str {
        match self {
            Literal::None => "none",
            Literal::Bool(_) => "a truth value",
            Literal::Int(_) => "a whole number",
            Literal::Float(_) => "a number",
            Literal::Text(_) => "text",
            Literal::List(_) => "a list",
            Literal::Dict(_) => "a dict",
        }
    }
}

/// Why a text is no literal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LiteralError {
    /// Longer than [`MAX_BYTES`].
    #[error("{0} bytes, at most {MAX_BYTES} are read")]
    TooLong(usize),
    /// Deeper than [`MAX_DEPTH`].
    #[error("at byte {0}: more than {MAX_DEPTH} levels deep")]
    TooDeep(usize),
    /// Something else than what may stand there.
    #[error("at byte {at}: {what}")]
    Unexpected {
        /// Bytes before it.
        at: usize,
        /// What is wrong.
        what: String,
    },
}

/// Reads one JSON value or Python literal, with white space around it.
///
/// # Errors
/// [`LiteralError`], with the place.
pub fn parse(text: &str) -> Result<Literal, LiteralError> {
    if text.len() > MAX_BYTES {
        return Err(LiteralError::TooLong(text.len()));
    }
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.space();
    match reader.peek() {
        None => Ok(value),
        Some(c) => Err(reader.wrong(format!("{c:?} after the end of the value"))),
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }
    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }
    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }
    /// Takes this character if it is next.
    fn take(&mut self, wanted: char) -> bool {
        let there = self.peek() == Some(wanted);
        if there {
            self.at += wanted.len_utf8();
        }
        there
    }
    fn space(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }
    fn wrong(&self, what: impl Into<String>) -> LiteralError {
        LiteralError::Unexpected { at: self.at, what: what.into() }
    }

    fn value(&mut self, depth: usize) -> Result<Literal, LiteralError> {
        self.space();
        if depth > MAX_DEPTH {
            return Err(LiteralError::TooDeep(self.at));
        }
        match self.peek() {
            None => Err(self.wrong("the text ends where a value is needed")),
            Some('{') => self.dict(depth),
            Some('[') => self.list('[', ']', depth),
            Some('(') => self.list('(', ')', depth),
            Some('"' | '\'') => self.text().map(Literal::Text),
            Some('-' | '+' | '.' | '0'..='9') => self.number(),
            Some(c) if c.is_ascii_alphabetic() => self.word(),
            Some(c) => Err(self.wrong(format!("{c:?} where a value is needed"))),
        }
    }

    fn word(&mut self) -> Result<Literal, LiteralError> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let word = &rest[..end];
        let value = match word {
            "None" | "null" => Literal::None,
            "True" | "true" => Literal::Bool(true),
            "False" | "false" => Literal::Bool(false),
            _ => {
                let shown: String = word.chars().take(40).collect();
                return Err(self.wrong(format!("'{shown}' is no value; text needs quotes")));
            }
        };
        self.at += end;
        Ok(value)
    }

    fn number(&mut self) -> Result<Literal, LiteralError> {
        let rest = self.rest();
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-._".contains(c)).unwrap_or(rest.len());
        let written = &rest[..end];
        let bytes = written.as_bytes();
        // As in Python: an underscore stands between two digits.
        let digit = |i: usize| bytes.get(i).is_some_and(u8::is_ascii_digit);
        let placed = |(i, b): (usize, &u8)| *b != b'_' || (i > 0 && digit(i - 1) && digit(i + 1));
        let plain: String = written.chars().filter(|c| *c != '_').collect();
        let decimal = plain.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c));
        let value = match bytes.iter().enumerate().all(placed) && decimal {
            false => None,
            true if plain.contains(['.', 'e', 'E']) => {
                plain.parse::<f64>().ok().filter(|n| n.is_finite()).map(Literal::Float)
            }
            true => plain.parse::<i64>().ok().map(Literal::Int),
        };
        let shown: String = written.chars().take(40).collect();
        let value = value.ok_or_else(|| self.wrong(format!("'{shown}' is no decimal number of at most 64 bits")))?;
        self.at += end;
        Ok(value)
    }

    fn text(&mut self) -> Result<String, LiteralError> {
        let begin = self.at;
        let quote = self.next().unwrap_or('"');
        let mut text = String::new();
        loop {
            match self.next() {
                None => {
                    return Err(LiteralError::Unexpected {
                        at: begin,
                        what: "the text that begins here never ends".into(),
                    });
                }
                Some(c) if c == quote => return Ok(text),
                Some('\n' | '\r') => {
                    self.at -= 1;
                    return Err(self.wrong("a line ends within quotes"));
                }
                Some('\\') => {
                    let escaped = self.escape()?;
                    text.push(escaped);
                }
                Some(c) => text.push(c),
            }
        }
    }

    fn escape(&mut self) -> Result<char, LiteralError> {
        let simple = match self.next() {
            Some(c @ ('\\' | '\'' | '"' | '/')) => c,
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('x') => return self.code(2),
            Some('U') => return self.code(8),
            Some('u') => return self.unicode(),
            _ => return Err(self.wrong("an escape that is neither JSON's nor Python's")),
        };
        Ok(simple)
    }

    fn digits(&mut self, count: usize) -> Result<u32, LiteralError> {
        let digits = self.rest().get(..count).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|d| u32::from_str_radix(d, 16).ok());
        let code = code.ok_or_else(|| self.wrong(format!("an escape needs {count} hex digits")))?;
        self.at += count;
        Ok(code)
    }

    fn code(&mut self, count: usize) -> Result<char, LiteralError> {
        let code = self.digits(count)?;
        char::from_u32(code).ok_or_else(|| self.wrong(format!("{code:#x} is no character")))
    }

    /// `\uXXXX`; JSON writes characters beyond 16 bits as two of them.
    fn unicode(&mut self) -> Result<char, LiteralError> {
        let first = self.digits(4)?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or_else(|| self.wrong(format!("{first:#x} is no character")));
        }
        let second = if self.take('\\') && self.take('u') { self.digits(4)? } else { 0 };
        match (0xdc00..0xe000).contains(&second) {
            true => {
                let code = 0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00);
                char::from_u32(code).ok_or_else(|| self.wrong("half a character"))
            }
            false => Err(self.wrong("half a character")),
        }
    }

    fn list(&mut self, open: char, close: char, depth: usize) -> Result<Literal, LiteralError> {
        self.take(open);
        let mut values = Vec::new();
        loop {
            self.space();
            if self.take(close) {
                return Ok(Literal::List(values));
            }
            values.push(self.value(depth + 1)?);
            self.space();
            if !self.take(',') && self.peek() != Some(close) {
                return Err(self.wrong(format!("',' or '{close}' is needed here")));
            }
        }
    }

    fn dict(&mut self, depth: usize) -> Result<Literal, LiteralError> {
        self.take('{');
        let mut entries: Vec<(String, Literal)> = Vec::new();
        loop {
            self.space();
            if self.take('}') {
                return Ok(Literal::Dict(entries));
            }
            if !matches!(self.peek(), Some('"' | '\'')) {
                return Err(self.wrong("a key in quotes is needed here"));
            }
            let begin = self.at;
            let key = self.text()?;
            if entries.iter().any(|(known, _)| *known == key) {
                return Err(LiteralError::Unexpected { at: begin, what: format!("the key {key:?} is there twice") });
            }
            self.space();
            if !self.take(':') {
                return Err(self.wrong("':' is needed after a key"));
            }
            let value = self.value(depth + 1)?;
            entries.push((key, value));
            self.space();
            if !self.take(',') && self.peek() != Some('}') {
                return Err(self.wrong("',' or '}' is needed here"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn dict(entries: &[(&str, Literal)]) -> Literal {
        Literal::Dict(entries.iter().map(|(key, value)| ((*key).to_owned(), value.clone())).collect())
    }

    #[test]
    fn json_and_python_say_the_same() {
        let wanted = dict(&[
            ("a", Literal::Int(2)),
            ("b", Literal::List(vec![Literal::Float(1.5), Literal::None, Literal::Bool(true), Literal::Bool(false)])),
            ("c", Literal::Text("it's \"so\"\n\u{1f600}é".into())),
            ("d", dict(&[])),
        ]);
        let json = r#" {"a": 2, "b": [1.5, null, true, false], "c": "it's \"so\"\n\ud83d\ude00\u00e9", "d": {}} "#;
        let python = r#"{'a': 2, 'b': (1.5, None, True, False,), 'c': 'it\'s "so"\n\U0001f600\xe9', 'd': {},}"#;
        assert_eq!(parse(json), Ok(wanted.clone()));
        assert_eq!(parse(python), Ok(wanted));
        assert_eq!(parse("1_073_741_824"), Ok(Literal::Int(1 << 30)));
        assert_eq!(parse("-1e3"), Ok(Literal::Float(-1000.0)));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let told = |text: &str| parse(text).unwrap_err().to_string();
        assert_eq!(told("{'a': 1 'b': 2}"), "at byte 8: ',' or '}' is needed here");
        assert_eq!(told("{'a': 1, 'a': 2}"), "at byte 9: the key \"a\" is there twice");
        assert_eq!(told("{a: 1}"), "at byte 1: a key in quotes is needed here");
        assert_eq!(told("{'a': exit()}"), "at byte 6: 'exit' is no value; text needs quotes");
        assert_eq!(told("'open"), "at byte 0: the text that begins here never ends");
        assert_eq!(told("{} {}"), "at byte 3: '{' after the end of the value");
        for wrong in ["", "1__0", "1_", "0x10", "1e999", "99999999999999999999", "'\\ud83d'", "'\\x4'", "inf", "nan"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(parse(&"[".repeat(100_000)), Err(LiteralError::TooLong(100_000)));
        assert!(matches!(parse(&"[".repeat(1_000)), Err(LiteralError::TooDeep(_))));
        assert!(parse(&format!("{}1{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH))).is_ok());
    }

    fn literals() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(serde_json::Value::from),
            any::<i64>().prop_map(serde_json::Value::from),
            any::<f64>().prop_filter("finite", |n| n.is_finite()).prop_map(serde_json::Value::from),
            ".{0,12}".prop_map(serde_json::Value::from),
        ];
        leaf.prop_recursive(4, 32, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
                prop::collection::hash_map(".{0,8}", inner, 0..6)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    fn same(literal: &Literal, json: &serde_json::Value) -> bool {
        use serde_json::Value;
        match (literal, json) {
            (Literal::None, Value::Null) => true,
            (Literal::Bool(a), Value::Bool(b)) => a == b,
            (Literal::Int(a), Value::Number(b)) => b.as_i64() == Some(*a),
            (Literal::Float(a), Value::Number(b)) => b.as_f64() == Some(*a),
            (Literal::Text(a), Value::String(b)) => a == b,
            (Literal::List(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
            (Literal::Dict(a), Value::Object(b)) => {
                a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
            }
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_fail(text in ".{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn no_text_of_its_own_signs_makes_the_reader_fail(text in r#"[{}\[\]()'":,\\xuU0-9a-fA-FeE+._ \-]{0,200}"#) {
            let _ = parse(&text);
        }

        #[test]
        fn all_json_reads_as_what_it_is(json in literals()) {
            let text = json.to_string();
            prop_assert!(same(&parse(&text).unwrap(), &json), "{text}");
        }
    }
}
