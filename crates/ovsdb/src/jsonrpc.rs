//! JSON-RPC 1.0 as RFC 7047, section 4 uses it: JSON objects one after the other on a byte stream,
//! with nothing between them that says where one ends.

use std::io::{self, Read, Write};

use serde_json::{Map, Value, json};

/// Longest message accepted, in bytes. The largest sensible one is a transaction that rewrites a
/// switch of ten thousand ports (about 10 MB); what is longer is an error or an attack.
pub const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// Deepest nesting of arrays and objects accepted. Real messages stay below 12; the JSON parser
/// recurses, so this bounds its stack.
pub const MAX_NESTING: usize = 64;

/// One JSON-RPC message.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// A call that wants a reply.
    Request {
        /// Any JSON but null; comes back in the reply.
        id: Value,
        /// What is called.
        method: String,
        /// Its arguments, an array.
        params: Value,
    },
    /// A call that wants no reply.
    Notification {
        /// What is called.
        method: String,
        /// Its arguments, an array.
        params: Value,
    },
    /// A successful reply.
    Reply {
        /// That of the request.
        id: Value,
        /// What the call gave.
        result: Value,
    },
    /// An unsuccessful reply.
    Error {
        /// That of the request.
        id: Value,
        /// A string or an `<error>` object; never null.
        error: Value,
    },
}

/// Why a stream cannot be read on. Nothing after such an error makes sense: disconnect.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolError {
    /// The stream failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The bytes are not JSON.
    #[error("not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON, but not an object where a message must begin.
    #[error("a message begins with byte 0x{0:02x} instead of \"{{\"")]
    NotAnObject(u8),
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("a message is longer than {MAX_MESSAGE_BYTES} bytes")]
    TooLong,
    /// Deeper than [`MAX_NESTING`].
    #[error("a message is nested deeper than {MAX_NESTING} levels")]
    TooDeep,
    /// An object, but no JSON-RPC message.
    #[error("not a JSON-RPC message: {0}")]
    NotAMessage(&'static str),
    /// The peer closed the stream, possibly in the middle of a message.
    #[error("the peer closed the connection")]
    Closed,
}

impl Message {
    /// Reads a message. Members that are absent count as null.
    ///
    /// # Errors
    /// [`ProtocolError::NotAMessage`] for an object that is none of the four kinds.
    pub fn from_json(mut json: Value) -> Result<Self, ProtocolError> {
        let mut take = |name: &str| json.get_mut(name).map(Value::take).unwrap_or_default();
        let (id, method, params) = (take("id"), take("method"), take("params"));
        let (result, error) = (take("result"), take("error"));
        let wrong = |what| Err(ProtocolError::NotAMessage(what));
        match (method, id.is_null()) {
            (Value::String(_), _) if !params.is_array() => wrong("params are not an array"),
            (Value::String(_), _) if !result.is_null() || !error.is_null() => {
                wrong("both a call and a reply")
            }
            (Value::String(method), true) => Ok(Self::Notification { method, params }),
            (Value::String(method), false) => Ok(Self::Request { id, method, params }),
            (Value::Null, true) => wrong("neither method nor id"),
            (Value::Null, false) if !params.is_null() => wrong("params without method"),
            (Value::Null, false) if error.is_null() => Ok(Self::Reply { id, result }),
            (Value::Null, false) if result.is_null() => Ok(Self::Error { id, error }),
            (Value::Null, false) => wrong("both result and error"),
            _ => wrong("method is not a string"),
        }
    }

    /// The message's JSON object.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        let mut put = |name: &str, value: &Value| object.insert(name.into(), value.clone());
        match self {
            Self::Request { id, method, params } => {
                put("id", id);
                put("method", &json!(method));
                put("params", params);
            }
            Self::Notification { method, params } => {
                put("id", &Value::Null);
                put("method", &json!(method));
                put("params", params);
            }
            Self::Reply { id, result } => {
                put("id", id);
                put("result", result);
                put("error", &Value::Null);
            }
            Self::Error { id, error } => {
                put("id", id);
                put("result", &Value::Null);
                put("error", error);
            }
        }
        Value::Object(object)
    }

    /// The message as it goes over the wire.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_json().to_string().into_bytes()
    }

    /// The answer to an `echo` request: the same arguments (RFC 7047, section 4.1.11).
    pub fn echo_reply(&self) -> Option<Self> {
        match self {
            Self::Request { id, method, params } if method == "echo" => {
                Some(Self::Reply { id: id.clone(), result: params.clone() })
            }
            _ => None,
        }
    }
}

/// Cuts a byte stream into messages. Each byte is looked at once, however the stream is cut.
#[derive(Debug, Default)]
pub struct Parser {
    buffer: Vec<u8>,
    /// Where the first message not yet given out begins in `buffer`.
    start: usize,
    /// Bytes of that message already scanned.
    scanned: usize,
    /// Open brackets and braces at `scanned`.
    depth: usize,
    in_string: bool,
    after_backslash: bool,
}

impl Parser {
    /// A parser at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes bytes from the stream.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..std::mem::take(&mut self.start));
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes waiting for the rest of their message.
    pub fn pending(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// The next whole message, `None` until more bytes are fed.
    ///
    /// # Errors
    /// Any [`ProtocolError`] but `Io` and `Closed`; the parser is of no use after it.
    #[allow(clippy::should_implement_trait, reason = "an error ends it, which no Iterator says")]
    pub fn next(&mut self) -> Result<Option<Message>, ProtocolError> {
        match self.find_end()? {
            None if self.pending() > MAX_MESSAGE_BYTES => Err(ProtocolError::TooLong),
            None => Ok(None),
            Some(end) if end > MAX_MESSAGE_BYTES => Err(ProtocolError::TooLong),
            Some(end) => {
                let end = self.start + end;
                let json = serde_json::from_slice(&self.buffer[self.start..end])?;
                self.start = end;
                self.scanned = 0;
                Message::from_json(json).map(Some)
            }
        }
    }

    /// Scans on to where the first message ends. Only nesting and strings matter for that; whether
    /// the text is JSON is left to the JSON parser.
    fn find_end(&mut self) -> Result<Option<usize>, ProtocolError> {
        if self.depth == 0 {
            let rest = &self.buffer[self.start..];
            self.start += rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
            match self.buffer.get(self.start) {
                None | Some(b'{') => {}
                Some(&other) => return Err(ProtocolError::NotAnObject(other)),
            }
        }
        while let Some(&byte) = self.buffer.get(self.start + self.scanned) {
            self.scanned += 1;
            if self.in_string {
                match byte {
                    _ if self.after_backslash => self.after_backslash = false,
                    b'\\' => self.after_backslash = true,
                    b'"' => self.in_string = false,
                    _ => {}
                }
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                b'{' | b'[' if self.depth == MAX_NESTING => return Err(ProtocolError::TooDeep),
                b'{' | b'[' => self.depth += 1,
                b'}' | b']' => {
                    self.depth -= 1;
                    if self.depth == 0 {
                        return Ok(Some(self.scanned));
                    }
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

/// A blocking connection: a stream and its parser, for clients.
#[derive(Debug)]
pub struct Connection<S> {
    stream: S,
    parser: Parser,
}

/// Bytes asked of a stream at a time.
const READ_BYTES: usize = 64 << 10;

impl<S: Read + Write> Connection<S> {
    /// A connection over `stream`.
    pub fn new(stream: S) -> Self {
        Self { stream, parser: Parser::new() }
    }

    /// The stream, for example to set its timeouts.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Writes a whole message.
    ///
    /// # Errors
    /// That of the stream.
    pub fn send(&mut self, message: &Message) -> io::Result<()> {
        self.stream.write_all(&message.to_bytes())
    }

    /// Waits for the next message. `echo` requests are answered and not returned.
    ///
    /// # Errors
    /// Any [`ProtocolError`]. After `Io` with `WouldBlock` or `TimedOut` (from the stream's read
    /// timeout) it can be called again without losing bytes.
    pub fn receive(&mut self) -> Result<Message, ProtocolError> {
        let mut chunk = vec![0; READ_BYTES];
        loop {
            while let Some(message) = self.parser.next()? {
                match message.echo_reply() {
                    Some(reply) => self.send(&reply)?,
                    None => return Ok(message),
                }
            }
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(ProtocolError::Closed),
                Ok(n) => self.parser.feed(&chunk[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse_all(bytes: &[u8], cuts: &[usize]) -> Result<Vec<Message>, ProtocolError> {
        let (mut parser, mut messages, mut from) = (Parser::new(), Vec::new(), 0);
        for to in cuts.iter().copied().chain([bytes.len()]) {
            let to = to.clamp(from, bytes.len());
            parser.feed(&bytes[from..to]);
            from = to;
            while let Some(message) = parser.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    fn samples() -> Vec<Message> {
        vec![
            Message::Request { id: json!(0), method: "echo".into(), params: json!(["}\"{\\"]) },
            Message::Notification { method: "update".into(), params: json!([null, {"é": [[]]}]) },
            Message::Reply { id: json!("x"), result: json!({}) },
            Message::Error { id: json!([1]), error: json!("canceled") },
        ]
    }

    proptest! {
        #[test]
        fn messages_survive_any_cut(mut cuts in proptest::collection::vec(0..300usize, 0..9)) {
            cuts.sort_unstable();
            let mut bytes = Vec::new();
            for message in samples() {
                bytes.extend(message.to_bytes());
                bytes.extend(b" \n");
            }
            prop_assert_eq!(parse_all(&bytes, &cuts).unwrap(), samples());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut object = b"{".to_vec();
            object.extend(&bytes);
            let _ = (parse_all(&bytes, &[]), parse_all(&object, &[3, 50]));
        }

        #[test]
        fn no_brackets_make_it_panic(text in "[{}\\[\\]\":,\\\\a1 ]{0,60}") {
            let _ = parse_all(text.as_bytes(), &[]);
        }
    }

    #[test]
    fn limits_hold() {
        let deep = format!("{{\"a\":{}", "[".repeat(MAX_NESTING));
        assert!(matches!(parse_all(deep.as_bytes(), &[]), Err(ProtocolError::TooDeep)));
        let long = format!("{{\"a\":\"{}", "x".repeat(MAX_MESSAGE_BYTES));
        assert!(matches!(parse_all(long.as_bytes(), &[]), Err(ProtocolError::TooLong)));
        assert!(matches!(parse_all(b" [1]", &[]), Err(ProtocolError::NotAnObject(b'['))));
        assert!(matches!(parse_all(b"{\"a\"}", &[]), Err(ProtocolError::Json(_))));
    }

    #[test]
    fn only_messages_are_messages() {
        for text in [
            "{}",
            r#"{"id":1,"method":3,"params":[]}"#,
            r#"{"id":1,"method":"m"}"#,
            r#"{"id":1,"method":"m","params":{}}"#,
            r#"{"id":1,"method":"m","params":[],"result":1}"#,
            r#"{"id":1,"result":1,"error":2}"#,
            r#"{"result":1}"#,
        ] {
            let parsed = parse_all(text.as_bytes(), &[]);
            assert!(matches!(parsed, Err(ProtocolError::NotAMessage(_))), "{text}");
        }
    }
}
