//! Two files for a browser, from a port of their own: what a web server would do.

use std::io::Result;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

const PAGE: &str = include_str!("../page/index.html");
const SCRIPT: &str = include_str!("../page/app.js");

/// Where they are.
pub(crate) struct Pages {
    listener: TcpListener,
    origin: String,
}

impl Pages {
    pub(crate) async fn bind() -> Result<Pages> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let origin = format!("http://{}", listener.local_addr()?);
        Ok(Pages { listener, origin })
    }

    pub(crate) fn origin(&self) -> &str {
        &self.origin
    }

    pub(crate) async fn serve(self) {
        while let Ok((link, _)) = self.listener.accept().await {
            tokio::spawn(answer(link));
        }
    }
}

async fn answer(link: TcpStream) -> Result<()> {
    let mut link = BufReader::new(link);
    let (mut request, mut line) = (String::new(), String::new());
    link.read_line(&mut request).await?;
    while link.read_line(&mut line).await? > 2 {
        line.clear();
    }
    let path = request.split([' ', '?']).nth(1).unwrap_or_default();
    let (status, content_type, body) = match path {
        "/" => ("200 OK", "text/html; charset=utf-8", PAGE),
        "/app.js" => ("200 OK", "text/javascript; charset=utf-8", SCRIPT),
        _ => ("404 Not Found", "text/plain", "there is / and /app.js\n"),
    };
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
    link.write_all(head.as_bytes()).await?;
    link.write_all(body.as_bytes()).await?;
    link.shutdown().await
}
