//! Reading and writing one unframed JSON message, bounded in size.

use std::io::{self, BufRead, BufWriter, Read, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Bytes written at once: a large message is never in memory a second time as JSON.
const WRITE_BYTES: usize = 64 << 10;

/// Reads the next message, a JSON object of at most `bytes_max` bytes; `None` at the end of the
/// stream. A request is `{"id":0,"method":"version","params":[]}`, a reply carries the request's
/// `id` and either `result` or `error` (JSON-RPC 1.0, section 1.1).
pub(crate) fn read(input: &mut impl BufRead, bytes_max: u64) -> io::Result<Option<Value>> {
    skip_white_space(input)?;
    if input.fill_buf()?.is_empty() {
        return Ok(None);
    }
    // An object ends with its closing brace, so nothing behind it is read ahead and lost here.
    let mut one = input.take(bytes_max);
    let mut parser = serde_json::Deserializer::from_reader(&mut one);
    match Value::deserialize(&mut parser) {
        Ok(value @ Value::Object(_)) => Ok(Some(value)),
        Ok(_) => Err(invalid("a message must be a JSON object")),
        Err(_) if one.limit() == 0 => Err(invalid("the message is too large")),
        Err(e) if e.is_io() => Err(e.into()),
        Err(e) => Err(invalid(&e.to_string())),
    }
}

/// Between messages white space is allowed, and must not count as the start of one.
fn skip_white_space(input: &mut impl BufRead) -> io::Result<()> {
    loop {
        let bytes = input.fill_buf()?;
        let white = bytes.iter().take_while(|b| b.is_ascii_whitespace()).count();
        if white == 0 {
            return Ok(());
        }
        input.consume(white);
    }
}

pub(crate) fn write(output: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let mut output = BufWriter::with_capacity(WRITE_BYTES, output);
    serde_json::to_writer(&mut output, message)?;
    output.write_all(b"\n")?;
    output.flush()
}

pub(crate) fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
