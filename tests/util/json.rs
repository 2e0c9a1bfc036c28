//! JSON as the test apps answer it: enough of RFC 8259 to read their answers and `tests/data`,
//! strict about the rest.

use std::ops::Index;

/// A JSON value. Object members keep their order.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    Null,
    Bool(bool),
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads one value; panics with the place of the first fault, for a test has no use for a half
    /// answer.
    #[track_caller]
    pub fn parse(text: &str) -> Json {
        let mut reader = Reader { bytes: text.as_bytes(), at: 0 };
        let value = reader.value();
        reader.skip_space();
        assert!(reader.at == text.len(), "something follows the JSON value at {}", reader.at);
        value
    }

    /// The member of that name, if this is an object that has it.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(members) => members.iter().find(|(key, _)| key == name).map(|(_, value)| value),
            _ => None,
        }
    }

    #[track_caller]
    pub fn text(&self) -> &str {
        match self {
            Json::Text(text) => text,
            other => panic!("not a string: {other:?}"),
        }
    }

    #[track_caller]
    pub fn number(&self) -> f64 {
        match self {
            Json::Number(number) => *number,
            other => panic!("not a number: {other:?}"),
        }
    }

    #[track_caller]
    pub fn list(&self) -> &[Json] {
        match self {
            Json::List(values) => values,
            other => panic!("not a list: {other:?}"),
        }
    }

    /// The strings of a list of strings.
    #[track_caller]
    pub fn texts(&self) -> Vec<&str> {
        self.list().iter().map(Json::text).collect()
    }
}

impl Index<&str> for Json {
    type Output = Json;

    #[track_caller]
    fn index(&self, name: &str) -> &Json {
        self.get(name).unwrap_or_else(|| panic!("no {name:?} in {self:?}"))
    }
}

impl PartialEq<str> for Json {
    fn eq(&self, other: &str) -> bool {
        matches!(self, Json::Text(text) if text == other)
    }
}

impl PartialEq<&str> for Json {
    fn eq(&self, other: &&str) -> bool {
        self == *other
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn value(&mut self) -> Json {
        self.skip_space();
        match self.peek() {
            b'{' => self.object(),
            b'[' => Json::List(self.items(b'[', b']', Self::value).unwrap_or_default()),
            b'"' => Json::Text(self.string()),
            b't' => self.word("true", Json::Bool(true)),
            b'f' => self.word("false", Json::Bool(false)),
            b'n' => self.word("null", Json::Null),
            _ => self.number(),
        }
    }

    fn object(&mut self) -> Json {
        let members = self.items(b'{', b'}', |reader| {
            reader.skip_space();
            let name = reader.string();
            reader.skip_space();
            reader.expect(b':');
            (name, reader.value())
        });
        Json::Object(members.unwrap_or_default())
    }

    /// What stands between the brackets, comma separated; `None` for nothing.
    fn items<T>(&mut self, open: u8, close: u8, mut item: impl FnMut(&mut Self) -> T) -> Option<Vec<T>> {
        self.expect(open);
        self.skip_space();
        if self.peek() == close {
            self.at += 1;
            return None;
        }
        let mut items = Vec::new();
        loop {
            items.push(item(self));
            self.skip_space();
            if self.peek() == close {
                self.at += 1;
                return Some(items);
            }
            self.expect(b',');
        }
    }

    fn string(&mut self) -> String {
        self.expect(b'"');
        let mut bytes = Vec::new();
        loop {
            match self.take() {
                b'"' => return String::from_utf8(bytes).expect("JSON is UTF-8"),
                b'\\' => bytes.extend(self.escape().to_string().into_bytes()),
                byte => bytes.push(byte),
            }
        }
    }

    fn escape(&mut self) -> char {
        match self.take() {
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'u' => {
                let first = self.hex4();
                // A character beyond the basic plane is written as two halves.
                if (0xd800..0xdc00).contains(&first) {
                    self.expect(b'\\');
                    self.expect(b'u');
                    let second = self.hex4();
                    return char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)).expect("a pair");
                }
                char::from_u32(first).expect("no lone surrogate")
            }
            byte => byte as char,
        }
    }

    fn hex4(&mut self) -> u32 {
        (0..4).fold(0, |sum, _| sum * 16 + (self.take() as char).to_digit(16).expect("a hex digit"))
    }

    fn number(&mut self) -> Json {
        let start = self.at;
        while self.at < self.bytes.len() && b"+-.eE0123456789".contains(&self.bytes[self.at]) {
            self.at += 1;
        }
        let text = std::str::from_utf8(&self.bytes[start..self.at]).expect("digits");
        Json::Number(text.parse().unwrap_or_else(|_| panic!("not JSON at {start}: {text:?}")))
    }

    fn word(&mut self, word: &str, value: Json) -> Json {
        assert!(self.bytes[self.at..].starts_with(word.as_bytes()), "not JSON at {}", self.at);
        self.at += word.len();
        value
    }

    fn skip_space(&mut self) {
        while self.at < self.bytes.len() && self.bytes[self.at].is_ascii_whitespace() {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) {
        let found = self.take();
        assert!(found == byte, "{:?} instead of {:?} at {}", found as char, byte as char, self.at - 1);
    }

    fn take(&mut self) -> u8 {
        let byte = self.peek();
        self.at += 1;
        byte
    }

    fn peek(&self) -> u8 {
        *self.bytes.get(self.at).expect("the JSON ends too early")
    }
}
