//! Programs that take mail, or say a token.
//!
//! The server may not start programs. Whoever may is asked with three descriptors: the content, which lies in memory and has no
//! name; a pipe for what the program writes; and a pipe by which it is told how the program ended.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    sync::Arc,
};

use bridge::{Delivered, Delivery, Hidden};
use delivery::{Exit, Hearing, LineEnds, Outcome, Program};
use mail::Status;
use message::local::{self, Local};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    net::unix::pipe::Receiver,
    task::spawn_blocking,
    time::timeout,
};

/// Who may start programs.
pub trait Programs: std::fmt::Debug + Send + Sync {
    /// Has a program started: with the content as its standard input, the pipe for what it writes, and that for a [`ProgramEnd`].
    ///
    /// # Errors
    /// When nobody is there who could.
    fn run(&self, run: &ProgramRun, descriptors: [BorrowedFd<'_>; 3]) -> io::Result<()>;
}

/// A program that is to be run. What that is, whoever runs it knows from the configuration.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub struct ProgramRun {
    /// Its name in the configuration.
    pub program: String,
    /// The sender; empty for reports.
    pub sender: String,
    /// The recipients.
    pub recipients: Vec<String>,
    /// The queue id.
    pub id: String,
}

/// How a program ended.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
pub enum ProgramEnd {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// It took too long.
    TimedOut,
    /// It was not started.
    NotStarted(String),
}

/// Octets that say how a program ended.
const END_MAX: u64 = 4 << 10;

/// Delivers by a program.
pub(crate) async fn deliver(
    delivery: &Delivery,
    program: &Program,
    programs: Option<Arc<dyn Programs>>,
) -> Delivered {
    let addresses =
        delivery.recipients.iter().filter_map(|place| delivery.envelope.recipients.get(*place as usize));
    let recipients: Vec<String> = addresses.map(|recipient| recipient.address.to_string()).collect();
    let sender = delivery.envelope.reverse_path.address().map_or("", |address| address.as_str()).to_owned();
    let only = match &recipients[..] {
        [only] => Some(only.as_str()),
        _ => None,
    };
    // What looks like an option may be taken for one.
    let odd = [
        (&recipients[..], Status(5, 1, 3), "recipient"),
        (std::slice::from_ref(&sender), Status(5, 1, 7), "sender"),
    ];
    if let Some((_, status, who)) =
        odd.iter().find(|(addresses, ..)| addresses.iter().any(|it| it.starts_with('-')))
    {
        let text = format!("the address of the {who} begins with - and is not given to a program");
        return Delivered { outcome: Outcome::failed(*status, text), is_answer: true };
    }
    if program.shape.delivered_to
        && let Some(only) = only
        && went_in_a_circle(delivery, only)
    {
        let text = "mail loops: it was delivered to this address before";
        return Delivered { outcome: Outcome::failed(Status(5, 4, 6), text), is_answer: true };
    }
    let run = ProgramRun {
        program: program.name.to_string(),
        sender,
        recipients: recipients.clone(),
        id: delivery.id.to_string(),
    };
    let before = before(delivery, program, only);
    let shape = Local { lf: program.shape.line_ends == LineEnds::Lf, quote_from: program.shape.mbox_from };
    let content = delivery.content.clone();
    let input = spawn_blocking(move || memory(&local::shape(&before, &content, shape))).await;
    let ended = match input.map_err(io::Error::other).and_then(|input| input) {
        Ok(input) => run_it(&run, input, program.hearing, programs).await,
        Err(error) => Err(format!("there is no memory for its input: {error}")),
    };
    let (exit, output) = ended.unwrap_or_else(|why| (Exit::Lost(why.into()), Vec::new()));
    let is_answer = !matches!(exit, Exit::Lost(_));
    Delivered { outcome: program.outcome(&exit, &output, &delivery.remote), is_answer }
}

/// What a program writes that is given nothing to read.
pub(crate) async fn say(
    program: &str,
    hearing: Hearing,
    programs: Option<Arc<dyn Programs>>,
) -> Result<Hidden, String> {
    let run = ProgramRun {
        program: program.to_owned(),
        sender: String::new(),
        recipients: Vec::new(),
        id: String::new(),
    };
    let input = memory(&[]).map_err(|error| error.to_string())?;
    match run_it(&run, input, hearing, programs).await? {
        (Exit::Code(0), output) => {
            let text = String::from_utf8(output).map_err(|_| "what it writes is no text".to_owned())?;
            Ok(Hidden::new(text.trim_end_matches(['\r', '\n'])))
        }
        // What it has written may be a secret all the same.
        (Exit::Code(code), _) => Err(format!("it ended with {code}")),
        (Exit::Signal(signal), _) => Err(format!("it was ended by signal {signal}")),
        (Exit::TimedOut, _) => Err("it took too long".into()),
        (Exit::Lost(why), _) => Err(why.into()),
    }
}

/// Runs it, and says how it ended and what it has written; an error when nobody knows.
async fn run_it(
    run: &ProgramRun,
    input: OwnedFd,
    hearing: Hearing,
    programs: Option<Arc<dyn Programs>>,
) -> Result<(Exit, Vec<u8>), String> {
    let programs = programs.ok_or("nobody is there to run programs: it takes a restart")?;
    let wrong = |error: io::Error| error.to_string();
    let ((output, write_output), (end, write_end)) = (io::pipe().map_err(wrong)?, io::pipe().map_err(wrong)?);
    let mut output = Receiver::from_owned_fd(output.into()).map_err(wrong)?;
    let mut end = Receiver::from_owned_fd(end.into()).map_err(wrong)?;
    let run = run.clone();
    // It takes the kernel a moment, or whoever is asked has much to do.
    let asked =
        spawn_blocking(move || programs.run(&run, [input.as_fd(), write_output.as_fd(), write_end.as_fd()]));
    asked.await.map_err(|error| error.to_string())?.map_err(|error| format!("nobody runs it: {error}"))?;
    let mut written = Vec::new();
    let mut told = Vec::new();
    let both = async {
        let mut limited = (&mut end).take(END_MAX);
        let ended = limited.read_to_end(&mut told);
        tokio::pin!(ended);
        loop {
            tokio::select! {
                ended = &mut ended => break ended,
                () = gather(&mut output, &mut written, hearing.output_max) => {}
            }
        }
    };
    match timeout(hearing.timeout + hearing.grace, both).await {
        Ok(Ok(_)) => {}
        Ok(Err(error)) => return Err(error.to_string()),
        Err(_) => return Err("nobody says how it ended".into()),
    }
    let _ = timeout(hearing.linger, gather_all(&mut output, &mut written, hearing.output_max)).await;
    let end = serde_json::from_slice(&told).map_err(|_| "nobody says how it ended".to_owned())?;
    let exit = match end {
        ProgramEnd::Code(code) => Exit::Code(code),
        ProgramEnd::Signal(signal) => Exit::Signal(signal),
        ProgramEnd::TimedOut => Exit::TimedOut,
        ProgramEnd::NotStarted(why) => Exit::Lost(why.into()),
    };
    Ok((exit, written))
}

/// Reads a piece of what a program writes. At the end this never returns.
async fn gather(output: &mut (impl AsyncRead + Unpin), written: &mut Vec<u8>, most: usize) {
    let mut piece = [0; 2048];
    match output.read(&mut piece).await {
        Ok(count) if count > 0 => keep(&piece[..count], written, most),
        Ok(_) | Err(_) => std::future::pending().await,
    }
}

async fn gather_all(output: &mut (impl AsyncRead + Unpin), written: &mut Vec<u8>, most: usize) {
    let mut piece = [0; 2048];
    while let Ok(count @ 1..) = output.read(&mut piece).await {
        keep(&piece[..count], written, most);
    }
}

/// Keeps what there is room for: so many octets at most.
fn keep(piece: &[u8], written: &mut Vec<u8>, most: usize) {
    let room = most.saturating_sub(written.len()).min(piece.len());
    written.extend_from_slice(&piece[..room]);
}

/// A file in memory alone, from its beginning.
fn memory(mut octets: &[u8]) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SeekFrom, memfd_create, seek};
    let file = memfd_create("mail", MemfdFlags::CLOEXEC)?;
    while !octets.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, octets))?;
        octets = &octets[written..];
    }
    seek(&file, SeekFrom::Start(0))?;
    Ok(file)
}

/// What whoever makes the final delivery puts before a message.
fn before(delivery: &Delivery, program: &Program, only: Option<&str>) -> Vec<u8> {
    let (mut out, reverse_path) = (Vec::new(), &delivery.envelope.reverse_path);
    if program.shape.mbox_from {
        local::mbox_from(&mut out, reverse_path, delivery.now);
    }
    if program.shape.return_path {
        message::trace::return_path_field(&mut out, reverse_path);
    }
    if let Some(only) = only.filter(|_| program.shape.delivered_to) {
        out.extend_from_slice(format!("Delivered-To: {only}\r\n").as_bytes());
    }
    out
}

fn went_in_a_circle(delivery: &Delivery, address: &str) -> bool {
    /// A header section that is longer is not looked through to its end.
    const HEADER_MAX: usize = 256 << 10;
    let len = message::content::len(&delivery.content).min(HEADER_MAX);
    local::was_delivered_to(&message::content::gather(&delivery.content, 0..len), address)
}
