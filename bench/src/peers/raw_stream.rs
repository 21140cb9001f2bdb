//! The most that a stream could do: the same bytes by tokio's `write_all` and `read`, without items, credit or a reply beside it.
//!
//! A connection carries one stream. Its first byte says which way; a server that was sent to answers with the number of bytes.
use super::raw::Raw;
use super::{Items, StreamPeer, Streams};
use crate::config::{ClientConfig, ServerConfig};
use crate::flow::Meter;
use anyhow::{Result, bail};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Of one write and one read.
const CHUNK: usize = 256 << 10;
const DOWN: u8 = 0;
const UP: u8 = 1;

impl StreamPeer for Raw {
    type Streams = Dialer;

    async fn serve_streams(config: ServerConfig) -> Result<()> {
        let listener = config.listen().await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve_one(stream));
        }
    }

    async fn open(config: ClientConfig) -> Result<Dialer> {
        Ok(Dialer(config))
    }
}

/// Ends when the client is gone.
async fn serve_one(mut stream: TcpStream) -> Result<()> {
    match stream.read_u8().await? {
        DOWN => {
            let chunk = vec![b'x'; CHUNK];
            loop {
                stream.write_all(&chunk).await?;
            }
        }
        UP => {
            let mut incoming = Incoming::new(stream);
            let mut bytes = 0;
            loop {
                match incoming.read().await? {
                    0 => return Ok(incoming.stream.write_u64(bytes).await?),
                    read => bytes += read as u64,
                }
            }
        }
        other => bail!("direction {other}"),
    }
}

/// Each of its streams is a connection.
pub(crate) struct Dialer(ClientConfig);

impl Streams for Dialer {
    type Items = Incoming;

    async fn download(&self, _: usize) -> Result<Incoming> {
        let mut stream = self.0.dial().await?;
        stream.write_u8(DOWN).await?;
        Ok(Incoming::new(stream))
    }

    async fn upload(&self, item: usize, meter: Arc<Meter>) -> Result<u64> {
        let mut stream = self.0.dial().await?;
        stream.write_u8(UP).await?;
        let chunk = vec![b'x'; item.max(CHUNK / item * item)];
        while meter.more(chunk.len()) {
            stream.write_all(&chunk).await?;
        }
        stream.shutdown().await?;
        Ok(stream.read_u64().await?)
    }
}

/// The reading end of a connection.
pub(crate) struct Incoming {
    stream: TcpStream,
    chunk: Box<[u8]>,
}

impl Incoming {
    fn new(stream: TcpStream) -> Incoming {
        Incoming { stream, chunk: vec![0; CHUNK].into() }
    }

    async fn read(&mut self) -> Result<usize> {
        Ok(self.stream.read(&mut self.chunk).await?)
    }
}

impl Items for Incoming {
    async fn next(&mut self) -> Result<usize> {
        match self.read().await? {
            0 => bail!("the server has closed the connection"),
            read => Ok(read),
        }
    }
}
