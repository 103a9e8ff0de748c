//! LZ4 frames ([the format](https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md)), written as Kafka's
//! Java client writes them: independent blocks of 64 KiB and no checksums, which the batch's CRC makes idle.
//!
//! Frames are taken apart here and not by the codec crate, whose reader sets aside twice the largest block that
//! a header of seven bytes claims: 8 MiB for each small batch of a client that leaves it at the default of 4.
//! A block's size is added up from its sequences before anything is allocated for it.

use lz4_flex::block;
use twox_hash::XxHash32;

use super::{Failure, invalid, problem};
use crate::error::BatchError;

const MAGIC: u32 = 0x184D_2204;
/// Magics of frames that are to be skipped, but for the lowest four bits.
const SKIPPABLE: u32 = 0x184D_2A50;
const BLOCK_BYTES: usize = 64 << 10;
/// How far back a block may reach into those before it.
const WINDOW_BYTES: usize = 64 << 10;
/// Magic; version 1, independent blocks; blocks of 64 KiB; the second byte of the XXH32 of those two.
const HEADER: [u8; 7] = [0x04, 0x22, 0x4D, 0x18, 0x60, 0x40, 0x82];
/// In a block's length: its bytes are stored as they are.
const STORED: u32 = 1 << 31;

/// What the descriptor of a frame says.
struct Frame {
    max_block_bytes: usize,
    independent: bool,
    block_checksums: bool,
    content_bytes: Option<u64>,
    content_checksum: bool,
}

pub(super) fn inflate(compressed: &[u8], out: &mut Vec<u8>, max_len: usize) -> Result<(), Failure> {
    let mut rest = Rest(compressed);
    loop {
        match rest.u32("a frame's magic")? {
            MAGIC => inflate_frame(&mut rest, out, max_len)?,
            magic if magic & !0xF == SKIPPABLE => {
                let len = rest.u32("the length of a frame to skip")?;
                rest.take(len as usize, "a frame to skip")?;
            }
            magic => return Err(problem(format!("{magic:#010x} is not the magic of a frame"))),
        }
        if rest.0.is_empty() {
            return Ok(());
        }
    }
}

fn inflate_frame(rest: &mut Rest<'_>, out: &mut Vec<u8>, max_len: usize) -> Result<(), Failure> {
    let frame = Frame::read(rest)?;
    let start = out.len();
    loop {
        let length = rest.u32("a block's length")?;
        if length == 0 {
            break;
        }
        let stored = length & STORED != 0;
        let bytes = rest.take((length & !STORED) as usize, "a block")?;
        if frame.block_checksums && rest.u32("a block's checksum")? != xxh32(bytes) {
            return Err(problem("a block's checksum is wrong"));
        }
        inflate_block(&frame, stored, bytes, start, out, max_len)?;
    }
    let content = &out[start..];
    if frame.content_bytes.is_some_and(|len| len != content.len() as u64) {
        return Err(problem("a frame does not hold as many bytes as it claims"));
    }
    if frame.content_checksum && rest.u32("the content's checksum")? != xxh32(content) {
        return Err(problem("the content's checksum is wrong"));
    }
    Ok(())
}

/// Appends a block of the frame whose content begins at `frame_start`.
fn inflate_block(
    frame: &Frame,
    stored: bool,
    bytes: &[u8],
    frame_start: usize,
    out: &mut Vec<u8>,
    max_len: usize,
) -> Result<(), Failure> {
    let len = if stored { bytes.len() } else { block_len(bytes)? };
    if len > frame.max_block_bytes {
        return Err(problem(format!(
            "a block of {len} bytes, in a frame of {} at most",
            frame.max_block_bytes
        )));
    }
    if len > max_len.saturating_sub(out.len()) {
        return Err(Failure::TooFar);
    }
    if stored {
        out.extend_from_slice(bytes);
        return Ok(());
    }
    let end = out.len();
    out.resize(end + len, 0);
    let (before, room) = out.split_at_mut(end);
    let written = if frame.independent {
        block::decompress_into(bytes, room)
    } else {
        let window = frame_start.max(end.saturating_sub(WINDOW_BYTES));
        block::decompress_into_with_dict(bytes, room, &before[window..])
    };
    match written.map_err(invalid)? {
        written if written == len => Ok(()),
        _ => Err(problem("a block ends before its sequences do")),
    }
}

/// What a block's sequences add up to.
fn block_len(bytes: &[u8]) -> Result<usize, Failure> {
    let mut rest = Rest(bytes);
    let mut len = 0_usize;
    loop {
        let token = rest.byte("a block")?;
        let literals = rest.run(token >> 4)?;
        rest.take(literals, "a block's literals")?;
        len = len.saturating_add(literals);
        if rest.0.is_empty() {
            return Ok(len);
        }
        rest.take(2, "a block's offset")?;
        len = len.saturating_add(rest.run(token & 0xF)?).saturating_add(4);
    }
}

impl Frame {
    /// Reads the descriptor, which follows the magic.
    fn read(rest: &mut Rest<'_>) -> Result<Frame, Failure> {
        let descriptor = rest.0;
        let flags = rest.byte("a frame's flags")?;
        if flags >> 6 != 1 {
            return Err(problem(format!("version {} of frames is not known", flags >> 6)));
        }
        let max_block_bytes = match rest.byte("a frame's block size")? >> 4 & 0b111 {
            size @ 4..=7 => 1 << (8 + 2 * size),
            size => return Err(problem(format!("block size {size} is not known"))),
        };
        let content_bytes = match flags & 0b1000 {
            0 => None,
            _ => Some(u64::from_le_bytes(*rest.chunk("a frame's content size")?)),
        };
        if flags & 0b1 != 0 {
            return Err(problem("a frame asks for a dictionary"));
        }
        let hash = xxh32(&descriptor[..descriptor.len() - rest.0.len()]);
        if rest.byte("a frame's header checksum")? != hash.to_le_bytes()[1] {
            return Err(problem("a frame's header checksum is wrong"));
        }
        Ok(Frame {
            max_block_bytes,
            independent: flags & 0b10_0000 != 0,
            block_checksums: flags & 0b1_0000 != 0,
            content_bytes,
            content_checksum: flags & 0b100 != 0,
        })
    }
}

/// What has not been read yet.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn take(&mut self, len: usize, what: &str) -> Result<&'a [u8], Failure> {
        let Some((taken, rest)) = self.0.split_at_checked(len) else {
            return Err(problem(format!("{what} needs {len} bytes, {} remain", self.0.len())));
        };
        self.0 = rest;
        Ok(taken)
    }

    fn chunk<const N: usize>(&mut self, what: &str) -> Result<&'a [u8; N], Failure> {
        let Some((chunk, rest)) = self.0.split_first_chunk() else {
            return Err(problem(format!("{what} needs {N} bytes, {} remain", self.0.len())));
        };
        self.0 = rest;
        Ok(chunk)
    }

    fn byte(&mut self, what: &str) -> Result<u8, Failure> {
        self.chunk::<1>(what).map(|[byte]| *byte)
    }

    fn u32(&mut self, what: &str) -> Result<u32, Failure> {
        self.chunk(what).map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// A length that begins with four bits, and goes on in bytes if all of them are set.
    fn run(&mut self, bits: u8) -> Result<usize, Failure> {
        let mut len = usize::from(bits);
        if bits == 0xF {
            loop {
                let byte = self.byte("a length")?;
                len = len.saturating_add(byte.into());
                if byte != 0xFF {
                    break;
                }
            }
        }
        Ok(len)
    }
}

fn xxh32(bytes: &[u8]) -> u32 {
    XxHash32::oneshot(0, bytes)
}

pub(super) fn compress(records: &[u8], out: &mut Vec<u8>) -> Result<(), BatchError> {
    out.extend_from_slice(&HEADER);
    for chunk in records.chunks(BLOCK_BYTES) {
        let start = out.len();
        out.resize(start + 4 + block::get_maximum_output_size(chunk.len()), 0);
        let written = block::compress_into(chunk, &mut out[start + 4..]);
        let len = written.expect("invariant: a block fits the room that the codec asks for");
        let prefix = u32::try_from(len.min(chunk.len())).expect("invariant: a block is small");
        if len < chunk.len() {
            out[start..start + 4].copy_from_slice(&prefix.to_le_bytes());
            out.truncate(start + 4 + len);
        } else {
            out[start..start + 4].copy_from_slice(&(prefix | STORED).to_le_bytes());
            out.truncate(start + 4);
            out.extend_from_slice(chunk);
        }
    }
    out.extend_from_slice(&0_u32.to_le_bytes());
    Ok(())
}
