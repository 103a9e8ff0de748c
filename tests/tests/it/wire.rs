//! HTTP/2 by hand: a peer that sends what no library would.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use logmill_log::env::{Clock as _, SystemClock};

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;

pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;

/// A peer that cannot write for so long is held back.
const HELD_BACK: Duration = Duration::from_secs(1);
/// Nothing that is waited for takes nearly as long.
const LIMIT: Duration = Duration::from_secs(60);

pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A header field as a literal that nobody remembers.
pub(crate) fn field(name: &str, value: &str) -> Vec<u8> {
    let length = |text: &str| u8::try_from(text.len()).ok().filter(|length| *length < 127).unwrap();
    [&[0, length(name)], name.as_bytes(), &[length(value)], value.as_bytes()].concat()
}

/// The fields of a call.
pub(crate) fn call(path: &str) -> Vec<u8> {
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "node"),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
    ];
    fields.iter().flat_map(|(name, value)| field(name, value)).collect()
}

/// A message as it is on the wire.
pub(crate) fn message(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap().to_be_bytes();
    [&[0], &length[..], bytes].concat()
}

/// A frame that the node has sent.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

/// How a flood ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Everything was taken.
    Taken,
    /// The node does not read on.
    HeldBack,
    /// The node has ended the connection.
    Cut,
}

/// A connection whose replies nobody reads.
pub(crate) struct Peer(pub(crate) TcpStream);

impl Peer {
    /// A connection that has begun as HTTP/2 does.
    pub(crate) fn connect(url: &str) -> Self {
        let mut peer = Self::silent(url);
        let greeting = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, b"")].concat();
        peer.0.write_all(&greeting).unwrap();
        peer
    }

    /// A connection that has not.
    pub(crate) fn silent(url: &str) -> Self {
        let tcp = TcpStream::connect(url.strip_prefix("http://").unwrap()).unwrap();
        tcp.set_write_timeout(Some(HELD_BACK)).unwrap();
        tcp.set_nodelay(true).unwrap();
        Self(tcp)
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> Ended {
        match self.0.write_all(bytes) {
            Ok(()) => Ended::Taken,
            Err(error) if is_timeout(&error) => Ended::HeldBack,
            Err(_) => Ended::Cut,
        }
    }

    /// Sends the frames of each number in turn, some thousand at a time.
    pub(crate) fn flood(&mut self, count: u32, frames: impl Fn(u32) -> Vec<u8>) -> Ended {
        let numbers: Vec<u32> = (0..count).collect();
        for part in numbers.chunks(1_000) {
            let bytes: Vec<u8> = part.iter().flat_map(|number| frames(*number)).collect();
            match self.send(&bytes) {
                Ended::Taken => {}
                ended => return ended,
            }
        }
        Ended::Taken
    }

    /// The first frame that the node has sent for which `is` its kind; reads over those before it. `None` if it ends the
    /// connection without one.
    pub(crate) fn reads(&mut self, is: impl Fn(u8) -> bool) -> Option<Frame> {
        self.0.set_read_timeout(Some(LIMIT)).unwrap();
        loop {
            let mut head = [0; 9];
            self.0.read_exact(&mut head).ok()?;
            let [a, b, c, kind, _, stream @ ..] = head;
            let mut payload = vec![0; usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap()];
            self.0.read_exact(&mut payload).ok()?;
            if is(kind) {
                return Some(Frame { kind, stream: u32::from_be_bytes(stream), payload });
            }
        }
    }

    /// Whether the node ends the connection; reads and forgets what it says until then.
    pub(crate) fn is_cut(&mut self, within: Duration) -> bool {
        let clock = SystemClock::new();
        self.0.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        let mut buffer = [0; 64 * 1024];
        while clock.monotonic() < within.min(LIMIT) {
            match self.0.read(&mut buffer) {
                Ok(0) => return true,
                Ok(_) => {}
                Err(error) if is_timeout(&error) => {}
                Err(_) => return true,
            }
        }
        false
    }
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
