//! JSON text into values of the engine, as its own `JSON.parse` makes them, with fewer instructions.
//!
//! What takes the engine's parser long is that rows of a table have the same keys again and again: here a key that comes
//! where it came before is compared, not read. Whatever is not plain (escapes, fractions, depth) is left to the engine, and
//! so is every text that this reader does not understand: it refuses nothing by itself.

use rquickjs::{Array, Atom, Ctx, IntoJs, Object, String as Text, Value, object::Property};

/// Nesting that is read here. The stack of a deeper text is the engine's to watch.
const DEPTH: u32 = 64;
/// Keys that are remembered: more than a table has columns, and few enough to look through.
const KEYS: usize = 64;
/// Digits of an integer that is read here: any number of so many fits 32 bits.
const DIGITS: usize = 9;

/// The value of `text`. Fails as `JSON.parse` does, and when there is no memory.
pub(super) fn parse<'js>(ctx: &Ctx<'js>, text: &str) -> rquickjs::Result<Value<'js>> {
    let mut reader = Reader { ctx, text, at: 0, keys: Vec::new(), last: None };
    match reader.document() {
        Ok(value) => Ok(value),
        Err(Odd::Text) => ctx.json_parse(text),
        Err(Odd::Engine(error)) => Err(error),
    }
}

/// Why the reader stops.
enum Odd {
    /// The text is for the engine's own parser.
    Text,
    /// The engine failed.
    Engine(rquickjs::Error),
}

impl From<rquickjs::Error> for Odd {
    fn from(error: rquickjs::Error) -> Self {
        Self::Engine(error)
    }
}

struct Reader<'a, 'js> {
    ctx: &'a Ctx<'js>,
    text: &'a str,
    at: usize,
    keys: Vec<Key<'a, 'js>>,
    /// The last key, by its place in `keys`.
    last: Option<usize>,
}

/// A key, and which one followed it when it came last.
struct Key<'a, 'js> {
    text: &'a str,
    atom: Atom<'js>,
    next: usize,
}

impl<'js> Reader<'_, 'js> {
    fn document(&mut self) -> Result<Value<'js>, Odd> {
        let value = self.value(0)?;
        self.blank();
        if self.at == self.text.len() { Ok(value) } else { Err(Odd::Text) }
    }

    fn value(&mut self, depth: u32) -> Result<Value<'js>, Odd> {
        self.blank();
        match self.peek() {
            Some(b'{') if depth < DEPTH => self.object(depth),
            Some(b'[') if depth < DEPTH => self.array(depth),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word("true", true),
            Some(b'f') => self.word("false", false),
            Some(b'n') => self.word("null", rquickjs::Null),
            _ => Err(Odd::Text),
        }
    }

    fn object(&mut self, depth: u32) -> Result<Value<'js>, Odd> {
        let object = Object::new(self.ctx.clone())?;
        self.at += 1;
        self.blank();
        if self.take(b'}') {
            return Ok(object.into_value());
        }
        loop {
            self.blank();
            let key = self.key()?;
            self.blank();
            self.expect(b':')?;
            let value = self.value(depth + 1)?;
            // Defined, not set: a setter that the app gave to all objects has no part in it.
            object.prop(key, Property::from(value).writable().enumerable().configurable())?;
            self.blank();
            if !self.take(b',') {
                self.expect(b'}')?;
                return Ok(object.into_value());
            }
        }
    }

    fn array(&mut self, depth: u32) -> Result<Value<'js>, Odd> {
        let array = Array::new(self.ctx.clone())?.into_object();
        self.at += 1;
        self.blank();
        if self.take(b']') {
            return Ok(array.into_value());
        }
        for index in 0_u32.. {
            let value = self.value(depth + 1)?;
            array.prop(index, Property::from(value).writable().enumerable().configurable())?;
            self.blank();
            if !self.take(b',') {
                break;
            }
        }
        self.expect(b']')?;
        Ok(array.into_value())
    }

    /// The key that begins here: the one that followed the last key before, or any that is known, or a new one.
    fn key(&mut self) -> Result<Atom<'js>, Odd> {
        self.expect(b'"')?;
        let rest = &self.text[self.at..];
        let is_next = |key: &Key<'_, '_>| rest.strip_prefix(key.text).is_some_and(|rest| rest.starts_with('"'));
        let guess = self.last.map_or(0, |last| self.keys[last].next);
        let known = match self.keys.get(guess) {
            Some(key) if is_next(key) => Some(guess),
            _ => self.keys.iter().position(is_next),
        };
        let place = if let Some(place) = known {
            place
        } else {
            let length = rest.bytes().position(|byte| byte == b'"').ok_or(Odd::Text)?;
            let text = &rest[..length];
            if text.bytes().any(|byte| byte == b'\\' || byte < b' ') {
                return Err(Odd::Text);
            }
            let atom = Atom::from_str(self.ctx.clone(), text)?;
            if self.keys.len() == KEYS {
                self.at += length + 1;
                return Ok(atom);
            }
            self.keys.push(Key { text, atom, next: self.keys.len() + 1 });
            self.keys.len() - 1
        };
        if let Some(last) = self.last.replace(place) {
            self.keys[last].next = place;
        }
        let key = &self.keys[place];
        self.at += key.text.len() + 1;
        Ok(key.atom.clone())
    }

    fn string(&mut self) -> Result<Value<'js>, Odd> {
        let bytes = self.text.as_bytes();
        let (began, mut end, mut plain) = (self.at, self.at + 1, true);
        loop {
            match bytes.get(end) {
                Some(b'"') => break,
                Some(b'\\') => {
                    plain = false;
                    end += 2;
                }
                // The engine says what is wrong with a line break in a string.
                Some(0..b' ') | None => return Err(Odd::Text),
                Some(_) => end += 1,
            }
        }
        self.at = end + 1;
        if plain {
            return Ok(Text::from_str(self.ctx.clone(), &self.text[began + 1..end])?.into_value());
        }
        Ok(self.ctx.json_parse(&self.text[began..=end])?)
    }

    fn number(&mut self) -> Result<Value<'js>, Odd> {
        let rest = &self.text[self.at..];
        let length = rest.bytes().position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
        let text = &rest[..length.unwrap_or(rest.len())];
        self.at += text.len();
        let digits = text.strip_prefix('-').unwrap_or(text);
        let plain =
            digits.len() <= DIGITS && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse::<i32>() {
            Ok(number) if plain || text == "0" => Ok(number.into_js(self.ctx)?),
            _ => Ok(self.ctx.json_parse(text)?),
        }
    }

    fn word(&mut self, word: &str, value: impl IntoJs<'js>) -> Result<Value<'js>, Odd> {
        if !self.text[self.at..].starts_with(word) {
            return Err(Odd::Text);
        }
        self.at += word.len();
        Ok(value.into_js(self.ctx)?)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blank(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.peek() {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_it = self.peek() == Some(byte);
        self.at += usize::from(is_it);
        is_it
    }

    fn expect(&mut self, byte: u8) -> Result<(), Odd> {
        if self.take(byte) { Ok(()) } else { Err(Odd::Text) }
    }
}
