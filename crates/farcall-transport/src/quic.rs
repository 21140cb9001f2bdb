//! QUIC: one connection with one stream of bytes each way is one link.
//!
//! More streams would be of no use: farcall's own frames interleave already. What QUIC brings is that a
//! link survives a change of the client's address, that it needs no TCP, and that certificates are a part
//! of it. 0-RTT is off: what it carries can be replayed by others.

use std::future::Future;
use std::io::{Error, ErrorKind, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use farcall_core::{Address, Code, RpcError, Stage};
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{
    ClientConfig, Connection, ConnectionError, Endpoint, IdleTimeout, RecvStream, SendStream, StoppedError, TransportConfig, VarInt,
};
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::facts::{PeerFacts, TlsPeer};
use crate::tls::{Here, TlsAcceptor, TlsClient, VERSION, proven_names, told_by_alert};

/// Silence after which a connection is lost. Both sides ask much more often.
const IDLE: Duration = Duration::from_secs(30);
/// How often a silent connection is kept alive, in its peer's mind and in that of what stands between.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// Bytes on their way each way that nobody has taken: what a link may cost in memory.
const WINDOW: u32 = 1 << 20;
/// Handshakes under way beyond which a client must first prove that it is where it says (a stateless retry,
/// which costs it a round trip and us no memory).
const UNPROVEN: usize = 64;
/// Clients whose handshake waits to be taken up; further ones are not answered.
const WAITING: usize = 1024;
/// Bytes kept for each of them and for all.
const WAITING_BYTES: u64 = 16 << 10;
const WAITING_BYTES_IN_ALL: u64 = 4 << 20;

type Finishing = Pin<Box<dyn Future<Output = std::result::Result<Option<VarInt>, StoppedError>> + Send + Sync>>;

/// A QUIC connection's one stream.
pub struct QuicLink {
    send: SendStream,
    recv: RecvStream,
    connection: Connection,
    here: Here,
    facts: PeerFacts,
    /// Set once the last byte is given to QUIC: until the peer has all of them.
    finishing: Option<Finishing>,
}

impl QuicLink {
    fn new(connection: Connection, (send, recv): (SendStream, RecvStream), sni: Option<String>) -> QuicLink {
        // Only a client knows a name before the handshake's data is looked at.
        let here = if sni.is_some() { Here::Client } else { Here::Server };
        let peer = connection.remote_address();
        let address = SocketAddr::new(peer.ip().to_canonical(), peer.port());
        let certificates = connection.peer_identity().and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok());
        let names = certificates.and_then(|all| all.first().map(proven_names)).unwrap_or_default();
        let agreed = connection.handshake_data().and_then(|any| any.downcast::<HandshakeData>().ok());
        let alpn = agreed.as_ref().and_then(|d| d.protocol.as_ref()).map(|p| String::from_utf8_lossy(p).into_owned());
        let sni = sni.or_else(|| agreed.and_then(|d| d.server_name));
        let tls = TlsPeer { names, sni, alpn, version: VERSION };
        let facts = PeerFacts { address: format!("quic://{address}"), ip: Some(address.ip()), tls: Some(tls), ..PeerFacts::default() };
        QuicLink { send, recv, connection, here, facts, finishing: None }
    }

    pub(crate) fn facts(&self) -> &PeerFacts {
        &self.facts
    }

    /// The words for an error of the stream: those of its connection's end, if it has ended.
    fn words(&self, e: Error) -> Error {
        match self.connection.close_reason() {
            Some(ConnectionError::ApplicationClosed(_)) => Error::new(ErrorKind::ConnectionReset, "the peer closed the connection"),
            Some(reason) => Error::new(e.kind(), lost(&reason, self.here)),
            None => e,
        }
    }
}

impl AsyncRead for QuicLink {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let me = self.get_mut();
        let read = ready!(AsyncRead::poll_read(Pin::new(&mut me.recv), cx, buf));
        Poll::Ready(read.map_err(|e| me.words(e)))
    }
}

impl AsyncWrite for QuicLink {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize>> {
        let me = self.get_mut();
        let written = ready!(AsyncWrite::poll_write(Pin::new(&mut me.send), cx, buf));
        Poll::Ready(written.map_err(|e| me.words(e)))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Until the peer has every byte: to drop a QUIC connection throws away what is still on its way.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let me = self.get_mut();
        let send = &mut me.send;
        let finishing = me.finishing.get_or_insert_with(|| {
            let _already = send.finish();
            Box::pin(send.stopped())
        });
        match ready!(finishing.as_mut().poll(cx)) {
            Ok(_) => Poll::Ready(Ok(())),
            Err(e) => Poll::Ready(Err(me.words(Error::new(ErrorKind::NotConnected, e)))),
        }
    }
}

/// What a connection ended of.
fn lost(e: &ConnectionError, here: Here) -> String {
    match e {
        ConnectionError::TimedOut => "no answer by UDP: is the provider running, does a firewall stand between?".to_owned(),
        ConnectionError::ConnectionClosed(close) => match alert(u64::from(close.error_code)) {
            Some(alert) => told_by_alert(alert, false, here).unwrap_or_else(|| format!("the peer gave up TLS: {close}")),
            None if u64::from(close.error_code) == 2 => "the peer refuses the connection: it takes no more for now".to_owned(),
            None => format!("the peer closed the connection: {close}"),
        },
        ConnectionError::TransportError(e) => match alert(u64::from(e.code)) {
            Some(alert) => told_by_alert(alert, true, here).unwrap_or_else(|| format!("TLS: {}", e.reason)),
            None => format!("QUIC: {e}"),
        },
        e => format!("QUIC: {e}"),
    }
}

/// QUIC carries TLS's alerts as error codes 0x100 to 0x1ff.
fn alert(code: u64) -> Option<u8> {
    code.checked_sub(0x100)?.try_into().ok()
}

/// The same for both sides.
fn transport() -> TransportConfig {
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(WINDOW))
        .send_window(u64::from(WINDOW))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(IDLE).ok());
    config
}

/// Connects to one of the addresses of `address`.
pub(crate) async fn connect(address: &Address, host: &str, to: SocketAddr, tls: &TlsClient) -> std::result::Result<QuicLink, RpcError> {
    let failed = |why: String| RpcError::not_sent(Code::Unavailable, format!("{address}: {why}")).with_stage(Stage::Connect);
    let name = tls.name_for(address, host)?.to_str().into_owned();
    let (config, verdict) = tls.config_with_verdict();
    let ended = |e: ConnectionError| failed(verdict.refused().unwrap_or_else(|| lost(&e, Here::Client)));
    let crypto = QuicClientConfig::try_from(config).map_err(|e| failed(format!("QUIC: {e}")))?;
    let mut config = ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport()));
    let any = if to.is_ipv4() { IpAddr::V4(Ipv4Addr::UNSPECIFIED) } else { IpAddr::V6(Ipv6Addr::UNSPECIFIED) };
    let endpoint =
        Endpoint::client(SocketAddr::new(any, 0)).map_err(|e| failed(format!("cannot open a UDP socket: {e}")).with_source(e))?;
    let connecting = endpoint.connect_with(config, to, &name).map_err(|e| failed(format!("QUIC: {e}")))?;
    let connection = connecting.await.map_err(ended)?;
    let streams = connection.open_bi().await.map_err(ended)?;
    Ok(QuicLink::new(connection, streams, Some(name)))
}

/// A bound UDP port.
pub(crate) struct QuicListener {
    endpoint: Endpoint,
    tls: Arc<TlsAcceptor>,
    made: Mutex<Option<(u64, Arc<quinn::ServerConfig>)>>,
    /// Handshakes under way.
    opening: Arc<AtomicUsize>,
}

impl QuicListener {
    pub(crate) fn bind(to: SocketAddr, tls: Arc<TlsAcceptor>) -> Result<QuicListener> {
        let config = server_config(&tls)?.1;
        let endpoint = Endpoint::server((*config).clone(), to)?;
        Ok(QuicListener { endpoint, tls, made: Mutex::new(None), opening: Arc::default() })
    }

    pub(crate) fn local_addr(&self) -> Result<SocketAddr> {
        self.endpoint.local_addr()
    }

    /// The next client that wants to shake hands.
    pub(crate) async fn accept(&self) -> Result<Incoming> {
        loop {
            let incoming = self.endpoint.accept().await.ok_or_else(|| Error::other("the listener is closed"))?;
            if self.opening.load(Ordering::Relaxed) >= UNPROVEN && incoming.may_retry() && !incoming.remote_address_validated() {
                let _ = incoming.retry();
                continue;
            }
            let config = self.config()?;
            return Ok(Incoming { incoming, config, opening: Opening::new(&self.opening) });
        }
    }

    /// Refuses what comes, and waits until the connections have ended.
    pub(crate) async fn close(self) {
        self.endpoint.set_server_config(None);
        self.endpoint.wait_idle().await;
    }

    /// As the certificates are now.
    fn config(&self) -> Result<Arc<quinn::ServerConfig>> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let generation = self.tls.config().0;
        if let Some((of, config)) = &*made
            && *of == generation
        {
            return Ok(Arc::clone(config));
        }
        let (generation, config) = server_config(&self.tls)?;
        *made = Some((generation, Arc::clone(&config)));
        Ok(config)
    }
}

fn server_config(tls: &TlsAcceptor) -> Result<(u64, Arc<quinn::ServerConfig>)> {
    let (generation, config) = tls.config();
    let crypto = QuicServerConfig::try_from(config).map_err(Error::other)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(transport()))
        .max_incoming(WAITING)
        .incoming_buffer_size(WAITING_BYTES)
        .incoming_buffer_size_total(WAITING_BYTES_IN_ALL);
    Ok((generation, Arc::new(config)))
}

/// Counts a handshake for as long as it exists.
struct Opening(Arc<AtomicUsize>);

impl Opening {
    fn new(count: &Arc<AtomicUsize>) -> Opening {
        count.fetch_add(1, Ordering::Relaxed);
        Opening(Arc::clone(count))
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A client that wants to shake hands.
pub(crate) struct Incoming {
    incoming: quinn::Incoming,
    config: Arc<quinn::ServerConfig>,
    opening: Opening,
}

impl Incoming {
    pub(crate) fn ip(&self) -> IpAddr {
        self.incoming.remote_address().ip().to_canonical()
    }

    /// Tells it that it is not let in.
    pub(crate) fn refuse(self) {
        self.incoming.refuse();
    }

    /// Shakes hands and waits for its stream.
    pub(crate) async fn open(self) -> std::result::Result<QuicLink, (String, String)> {
        let Incoming { incoming, config, opening: _opening } = self;
        let address = format!("quic://{}", incoming.remote_address());
        let failed = |e: ConnectionError| (address.clone(), lost(&e, Here::Server));
        let connection = incoming.accept_with(config).map_err(failed)?.await.map_err(failed)?;
        let streams = connection.accept_bi().await.map_err(failed)?;
        Ok(QuicLink::new(connection, streams, None))
    }
}
