//! Reads JSON with the place of every value. Values come from serde_json; a second walk over the text, which by then is
//! known to be JSON, finds the places and the keys that are there twice.

use std::{iter::Peekable, str::Chars};

use serde_json::Value;

use super::{
    Source,
    position::{Mark, Positions, join},
    problem::{Problem, ProblemCode},
};

/// Reads `text`. Nesting deeper than serde_json's 128 levels is refused by it.
pub(super) fn read(text: &str) -> Result<Source, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(Problem { line: 1, ..Problem::new(ProblemCode::Syntax, "", "there is nothing in the manifest") });
    }
    let value: Value = serde_json::from_str(text).map_err(|error| syntax_problem(&error))?;
    let mut walk = Walk { chars: text.chars().peekable(), mark: Mark { line: 1, column: 1 }, problems: Vec::new() };
    let positions = walk.value("");
    Ok(Source { value, positions, problems: walk.problems })
}

fn syntax_problem(error: &serde_json::Error) -> Problem {
    let words = error.to_string();
    let words = words.split(" at line ").next().unwrap_or(&words);
    let mut problem = Problem::new(ProblemCode::Syntax, "", format!("this is not JSON: {words}"));
    problem.line = u32::try_from(error.line()).unwrap_or(u32::MAX).max(1);
    problem.column = Some(u32::try_from(error.column()).unwrap_or(u32::MAX).max(1));
    problem
}

/// A walk over a text that is JSON.
struct Walk<'a> {
    chars: Peekable<Chars<'a>>,
    mark: Mark,
    problems: Vec<Problem>,
}

impl Walk<'_> {
    fn value(&mut self, pointer: &str) -> Positions {
        self.space();
        let mut place = Positions::at(self.mark);
        match self.chars.peek() {
            Some('{') => self.object(&mut place, pointer),
            Some('[') => self.array(&mut place, pointer),
            Some('"') => drop(self.string()),
            _ => {
                while self.chars.peek().is_some_and(|c| c.is_ascii_alphanumeric() || "+-.".contains(*c)) {
                    self.step();
                }
            }
        }
        place
    }

    fn object(&mut self, place: &mut Positions, pointer: &str) {
        self.step();
        while !self.closes('}') {
            let key_mark = self.mark;
            let key = self.string();
            self.space();
            self.step(); // The colon.
            let inner = join(pointer, &key);
            let mut member = self.value(&inner);
            member.key = key_mark;
            if let Some(first) = place.fields.insert(key.clone(), member) {
                let words = format!("the key `{key}` is there twice; the first is on line {}", first.key.line);
                let mut problem = Problem::new(ProblemCode::DuplicateKey, inner, words);
                problem.line = key_mark.line;
                problem.column = Some(key_mark.column);
                self.problems.push(problem);
            }
        }
    }

    fn array(&mut self, place: &mut Positions, pointer: &str) {
        self.step();
        while !self.closes(']') {
            let inner = join(pointer, place.items.len());
            let item = self.value(&inner);
            place.items.push(item);
        }
    }

    /// Steps over space, a comma and, if it is there, the closing bracket.
    fn closes(&mut self, bracket: char) -> bool {
        self.space();
        if self.chars.peek() == Some(&',') {
            self.step();
            self.space();
        }
        let closed = self.chars.peek().is_none_or(|c| *c == bracket);
        if closed {
            self.step();
        }
        closed
    }

    /// Steps over a string and gives its content.
    fn string(&mut self) -> String {
        let mut raw = String::new();
        let mut escaped = false;
        while let Some(c) = self.step() {
            raw.push(c);
            if c == '"' && !escaped && raw.len() > 1 {
                break;
            }
            escaped = c == '\\' && !escaped;
        }
        serde_json::from_str(&raw).unwrap_or(raw)
    }

    fn space(&mut self) {
        while self.chars.peek().is_some_and(char::is_ascii_whitespace) {
            self.step();
        }
    }

    fn step(&mut self) -> Option<char> {
        let c = self.chars.next()?;
        if c == '\n' {
            self.mark = Mark { line: self.mark.line + 1, column: 1 };
        } else {
            self.mark.column += 1;
        }
        Some(c)
    }
}
