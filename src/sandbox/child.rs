//! The child: locks itself down, then runs one pass after the other until its parent closes the pipe.
//!
//! No asynchronous runtime, no environment, no files: it reads orders on descriptor 0 and writes reports on 1.

use std::{
    io::{self, Read},
    process::ExitCode,
};

use super::{
    engine::Engine,
    limits::ORDER_BYTES,
    lockdown,
    protocol::{self, HEAD_BYTES, Kind, RunOrder},
};

/// The hidden verb `krilin sandbox`. `args` are the words after it: none, or `--probe NAME` to attempt what the lockdown
/// must forbid.
pub fn main(args: &[String]) -> ExitCode {
    // The parent learns of a panic by the end of the pipe; nobody reads our words.
    std::panic::set_hook(Box::new(|_| {}));
    let Some(mut engine) = Engine::warm() else { return ExitCode::from(3) };
    if lockdown::apply().is_err() {
        return ExitCode::from(4);
    }
    if let [flag, name] = args
        && flag == "--probe"
    {
        lockdown::probe(name);
        return ExitCode::SUCCESS;
    }
    match serve(&mut engine, &mut Pipe::new()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(5),
    }
}

fn serve(engine: &mut Engine, pipe: &mut Pipe) -> io::Result<()> {
    pipe.send(Kind::Ready, b"null")?;
    while let Some(kind) = pipe.receive()? {
        let order = std::mem::take(&mut pipe.order);
        let Kind::Run = kind else { return Err(io::ErrorKind::InvalidData.into()) };
        let run: RunOrder<'_> = serde_json::from_slice(&order)?;
        let (kind, report) = engine.run(&run, pipe)?;
        pipe.send(kind, &report)?;
        pipe.order = order;
    }
    Ok(())
}

/// The two ends a child has.
pub(super) struct Pipe {
    /// The payload of the last order.
    pub(super) order: Vec<u8>,
    frame: Vec<u8>,
}

impl Pipe {
    fn new() -> Self {
        Self { order: Vec::new(), frame: Vec::new() }
    }

    /// Sends one report in one write, as far as the pipe takes it.
    pub(super) fn send(&mut self, kind: Kind, payload: &[u8]) -> io::Result<()> {
        protocol::begin(&mut self.frame, kind);
        self.frame.extend_from_slice(payload);
        protocol::finish(&mut self.frame);
        let mut rest = self.frame.as_slice();
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(io::stdout(), rest))?;
            rest = &rest[written..];
        }
        Ok(())
    }

    /// Receives the next order into `self.order`; none when the parent has closed the pipe.
    pub(super) fn receive(&mut self) -> io::Result<Option<Kind>> {
        let mut input = io::stdin().lock();
        let mut head = [0; HEAD_BYTES];
        match input.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error),
        }
        let (kind, length) = protocol::head(head, ORDER_BYTES)?;
        self.order.resize(length, 0);
        input.read_exact(&mut self.order)?;
        Ok(Some(kind))
    }
}
