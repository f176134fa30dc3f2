//! An origin of HTTP/1: `GET /N` gets N bytes, any other request the length of its body.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Starts it; it ends with the program.
pub(super) fn start() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            thread::spawn(move || serve(&socket));
        }
    });
    address
}

fn serve(socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut reader = BufReader::new(socket);
    loop {
        let first = line(&mut reader)?;
        let mut words = first.split(' ');
        let (method, target) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let (mut length, mut is_chunked) = (0, false);
        loop {
            let field = line(&mut reader)?.to_ascii_lowercase();
            match field.split_once(':') {
                None => break,
                Some(("content-length", value)) => length = number(value.trim(), 10)?,
                Some(("transfer-encoding", _)) => is_chunked = true,
                Some(_) => {}
            }
        }
        let received = if is_chunked {
            chunks(&mut reader)?
        } else {
            skip(&mut reader, length)?
        };
        let path = target.split('?').next().unwrap_or_default();
        let body = match path.trim_start_matches('/').parse() {
            Ok(length) if method == "GET" => "x".repeat(length),
            _ => received.to_string(),
        };
        let body = if method == "HEAD" { "" } else { &body };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        let mut writer = socket;
        writer.write_all(&[head.as_bytes(), body.as_bytes()].concat())?;
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(line.trim_end().to_owned())
}

fn number(text: &str, radix: u32) -> io::Result<u64> {
    u64::from_str_radix(text, radix).map_err(io::Error::other)
}

fn skip(reader: &mut impl Read, length: u64) -> io::Result<u64> {
    match io::copy(&mut reader.take(length), &mut io::sink())? {
        read if read == length => Ok(length),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn chunks(reader: &mut impl BufRead) -> io::Result<u64> {
    let mut sum = 0;
    loop {
        let size = number(&line(reader)?, 16)?;
        if size == 0 {
            // The trailers.
            while !line(reader)?.is_empty() {}
            return Ok(sum);
        }
        sum += skip(reader, size)?;
        line(reader)?;
    }
}
