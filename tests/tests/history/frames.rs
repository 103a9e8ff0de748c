//! Where the messages lie in the bytes of an HTTP/2 connection (RFC 9113, section 4.1).

/// What a client says before its first frame.
const PREFACE_LEN: usize = 24;
const HEADER_LEN: usize = 9;
/// The type of frames that carry messages.
const DATA: u8 = 0;

/// Follows one direction of a connection.
#[derive(Debug)]
pub(crate) struct Frames {
    /// So many bytes belong to the preface or to the payload of a frame.
    rest: usize,
    is_data: bool,
    header: Vec<u8>,
}

impl Frames {
    pub(crate) fn of_client() -> Self {
        Self { rest: PREFACE_LEN, is_data: false, header: Vec::new() }
    }

    pub(crate) fn of_node() -> Self {
        Self { rest: 0, is_data: false, header: Vec::new() }
    }

    /// Takes in the bytes that follow, and says where the first of them is that belongs to a message.
    pub(crate) fn first_data_in(&mut self, bytes: &[u8]) -> Option<usize> {
        let (mut at, mut first) = (0, None);
        while at < bytes.len() {
            if self.rest > 0 {
                first = first.or(self.is_data.then_some(at));
                let passed = self.rest.min(bytes.len() - at);
                (self.rest, at) = (self.rest - passed, at + passed);
            } else {
                self.header.push(bytes[at]);
                at += 1;
                self.begin();
            }
        }
        first
    }

    /// Begins the payload of a frame, if its header is complete.
    fn begin(&mut self) {
        if let [a, b, c, kind, ..] = *self.header
            && self.header.len() == HEADER_LEN
        {
            self.rest = u32::from_be_bytes([0, a, b, c]) as usize;
            self.is_data = kind == DATA;
            self.header.clear();
        }
    }
}

#[test]
fn messages_are_found_however_the_bytes_are_cut() {
    let mut bytes = vec![b'P'; PREFACE_LEN];
    let mut is_data = vec![false; PREFACE_LEN];
    for (kind, len) in [(4, 6), (1, 300), (DATA, 0), (DATA, 500), (8, 4), (DATA, 5)] {
        let [.., b, c] = u32::try_from(len).unwrap().to_be_bytes();
        bytes.extend_from_slice(&[0, b, c, kind, 0, 0, 0, 0, 1]);
        bytes.resize(bytes.len() + len, b'x');
        is_data.extend_from_slice(&[false; HEADER_LEN]);
        is_data.resize(bytes.len(), kind == DATA);
    }
    for cut in 0..=bytes.len() {
        let mut frames = Frames::of_client();
        for range in [0..cut, cut..bytes.len()] {
            let expected = is_data[range.clone()].iter().position(|is_data| *is_data);
            assert_eq!(frames.first_data_in(&bytes[range.clone()]), expected, "{range:?}");
        }
    }
}
