//! The console of a pooler that is not there: it notes the commands, and answers as it is told.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

/// What the console says.
#[derive(Clone, Copy)]
pub struct Says {
    pub version: &'static str,
    pub max_prepared_statements: &'static str,
    /// A command that gets no answer.
    pub silent: &'static str,
    /// A command that fails.
    pub failing: &'static str,
}

/// A console that works.
pub const WORKS: Says = Says { version: "PgBouncer 1.24.1", max_prepared_statements: "200", silent: "", failing: "" };

pub struct Fake {
    pub address: SocketAddr,
    commands: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    pub fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let commands = Arc::new(Mutex::new(Vec::new()));
        let noted = commands.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, noted) = (stream.expect("a client"), noted.clone());
                thread::spawn(move || serve(stream, says, &noted));
            }
        });
        Self { address, commands }
    }

    /// The commands that change something, since the last call.
    pub fn commands(&self) -> Vec<String> {
        let commands = std::mem::take(&mut *self.commands.lock().expect("no panic"));
        commands.into_iter().filter(|command| !command.starts_with("show")).collect()
    }
}

fn serve(mut stream: TcpStream, says: Says, noted: &Mutex<Vec<String>>) -> Option<()> {
    const TLS: [u8; 4] = 80_877_103_u32.to_be_bytes();
    while read_message(&mut stream)?.starts_with(&TLS) {
        stream.write_all(b"N").ok()?;
    }
    stream.write_all(&[message(b'R', &[0; 4]), ready()].concat()).ok()?;
    loop {
        let mut kind = [0];
        stream.read_exact(&mut kind).ok()?;
        let body = read_message(&mut stream)?;
        if kind != *b"Q" {
            return None;
        }
        let command = String::from_utf8_lossy(&body).trim_end_matches('\0').to_owned();
        let answer = match command.as_str() {
            "show version" => rows(&["version"], &[says.version]),
            "show config" => rows(&["key", "value"], &["max_prepared_statements", says.max_prepared_statements]),
            "show databases" => rows(&["name", "pool_mode", "paused"], &["shop", "transaction", "0"]),
            "show servers" => rows(&["database", "state", "remote_pid"], &["shop", "idle", "1"]),
            failing if failing == says.failing => message(b'E', b"SERROR\0CF0000\0Mit does not work\0\0"),
            _ => message(b'C', b"DONE\0"),
        };
        let is_silent = command == says.silent;
        noted.lock().expect("no panic").push(command);
        if !is_silent {
            stream.write_all(&[answer, ready()].concat()).ok()?;
        }
    }
}

/// The body of a message.
fn read_message(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).ok()?;
    let mut body = vec![0; u32::from_be_bytes(length) as usize - 4];
    stream.read_exact(&mut body).ok()?;
    Some(body)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).expect("a short message").to_be_bytes();
    [&[kind], &length[..], body].concat()
}

fn ready() -> Vec<u8> {
    message(b'Z', b"I")
}

/// Rows of text, and the end of the command.
fn rows(columns: &[&str], values: &[&str]) -> Vec<u8> {
    let count = |number: usize| u16::try_from(number).expect("few columns").to_be_bytes().to_vec();
    let mut described = count(columns.len());
    for column in columns {
        // No table, the type text, any length.
        described.extend([column.as_bytes(), b"\0", &[0; 6], &25_u32.to_be_bytes(), &[255; 2], &[255; 4], &[0; 2]].concat());
    }
    let mut said = message(b'T', &described);
    for row in values.chunks(columns.len()) {
        let mut data = count(row.len());
        for value in row {
            let length = u32::try_from(value.len()).expect("a short value").to_be_bytes();
            data.extend([&length[..], value.as_bytes()].concat());
        }
        said.extend(message(b'D', &data));
    }
    said.extend(message(b'C', b"SHOW\0"));
    said
}
