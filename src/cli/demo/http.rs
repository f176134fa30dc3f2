//! A minimal HTTP/1.1 for the demo: no request bodies, no chunked bodies, no error responses.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Reads a request without a body, and returns its target; `None`: the client has closed the connection.
pub(super) async fn read_target(stream: &mut BufReader<TcpStream>) -> io::Result<Option<String>> {
    let mut line = String::new();
    if stream.read_line(&mut line).await? == 0 {
        return Ok(None);
    }
    let target = line.split(' ').nth(1).unwrap_or("/").to_owned();
    while line.trim_end() != "" {
        line.clear();
        stream.read_line(&mut line).await?;
    }
    Ok(Some(target))
}

/// Writes a response of status 200.
pub(super) async fn write_text(stream: &mut BufReader<TcpStream>, text: &str) -> io::Result<()> {
    let header = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n",
        text.len()
    );
    stream.write_all((header + text).as_bytes()).await?;
    stream.flush().await
}

/// Sends a GET request on an open connection, and reads the body of the response.
pub(super) async fn get(stream: &mut BufReader<TcpStream>, target: &str) -> io::Result<String> {
    // The admin API accepts no name without a token.
    let host = stream.get_ref().peer_addr()?;
    let request = format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut length = 0;
    let mut line = String::new();
    while stream.read_line(&mut line).await? > 2 {
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value
                .trim()
                .parse()
                .map_err(|_| io::ErrorKind::InvalidData)?;
        }
        line.clear();
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    String::from_utf8(body).map_err(|_| io::ErrorKind::InvalidData.into())
}
