//! A node as a process, and peers that flood it: its memory stays bounded and it serves the others.

use std::time::Duration;

use logmill_tests::{Node, Program, rss_anon};

use crate::wire::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Ended, GOAWAY, HEADERS, PING, Peer, RST_STREAM, SETTINGS,
    WINDOW_UPDATE, call, field, frame, message,
};
use crate::{logmill, node};

const MIB: u64 = 1024 * 1024;
/// What a node may take more under a flood than before it: the windows of the connection, 16 MiB, what lies in
/// queues and buffers, and what the allocator keeps of it.
const ROOM: u64 = 48 * MIB;

const PRODUCE: &str = "/logmill.v1.ProduceService/Produce";
const LIST: &str = "/logmill.v1.TopicService/ListTopics";

/// Floods a node, and looks whether it stays what it was.
fn under(name: &str, flood: impl FnOnce(&mut Peer) -> Ended) -> Ended {
    let (_dir, node, program) = node();
    program.ok(["topic", "create", "t"]);
    serves(&program);
    let before = rss_anon(node.pid());
    let mut peer = Peer::connect(node.url());
    let ended = flood(&mut peer);
    serves(&program);
    let after = rss_anon(node.pid());
    let cut = ended == Ended::Cut || peer.is_cut(Duration::from_secs(2));
    println!(
        "{name}: {ended:?}, cut {cut}, RssAnon {} KiB before, {} KiB after",
        before / 1024,
        after / 1024
    );
    assert!(after < before + ROOM, "{name}: {before} bytes before, {after} after");
    drop(peer);
    assert_eq!(node.terminate(), 0);
    if cut { Ended::Cut } else { ended }
}

fn serves(program: &Program) {
    program.ok_with(["produce", "t"], b"x\n");
    assert!(program.ok(["consume", "t", "-n", "1"]).starts_with('x'));
}

fn odd(number: u32) -> u32 {
    number * 2 + 1
}

#[test]
fn streams_that_are_opened_and_reset_end_the_connection() {
    let fields = call(LIST);
    let ended = under("resets", |peer| {
        peer.flood(100_000, |number| {
            let opened = frame(HEADERS, END_HEADERS, odd(number), &fields);
            [opened, frame(RST_STREAM, 0, odd(number), &8_u32.to_be_bytes())].concat()
        })
    });
    assert_eq!(ended, Ended::Cut);
}

#[test]
fn streams_that_the_node_has_to_reset_end_the_connection() {
    // A window that overflows is the stream's fault, and not that of the connection.
    let fields = call(PRODUCE);
    let ended = under("own resets", |peer| {
        peer.flood(100_000, |number| {
            let opened = frame(HEADERS, END_HEADERS, odd(number), &fields);
            [opened, frame(WINDOW_UPDATE, 0, odd(number), &0x7FFF_FFFF_u32.to_be_bytes())].concat()
        })
    });
    assert_eq!(ended, Ended::Cut);
}

#[test]
fn pings_whose_answers_nobody_reads_are_held_back() {
    let ping = frame(PING, 0, 0, &[7; 8]);
    assert_ne!(under("pings", |peer| peer.flood(2_000_000, |_| ping.clone())), Ended::Taken);
}

#[test]
fn settings_whose_acknowledgements_nobody_reads_are_held_back() {
    let settings = frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100]);
    assert_ne!(under("settings", |peer| peer.flood(2_000_000, |_| settings.clone())), Ended::Taken);
}

#[test]
fn frames_of_nothing_end_the_connection() {
    let ended = under("empty frames", |peer| {
        peer.send(&frame(HEADERS, END_HEADERS, 1, &call(PRODUCE)));
        peer.flood(1_000_000, |_| frame(DATA, 0, 1, b""))
    });
    assert_eq!(ended, Ended::Cut);
}

#[test]
fn frames_of_one_byte_end_the_connection() {
    let ended = under("tiny frames", |peer| {
        let begun = [&[0][..], &1_000_000_u32.to_be_bytes()].concat();
        peer.send(&frame(HEADERS, END_HEADERS, 1, &call(PRODUCE)));
        peer.send(&frame(DATA, 0, 1, &begun));
        peer.flood(900_000, |_| frame(DATA, 0, 1, b"x"))
    });
    assert_eq!(ended, Ended::Cut);
}

#[test]
fn headers_without_end_end_the_connection() {
    let ended = under("continuations", |peer| {
        peer.send(&frame(HEADERS, 0, 1, &call(LIST)));
        peer.flood(100_000, |number| frame(CONTINUATION, 0, 1, &field("x-more", &format!("{number:0100}"))))
    });
    assert_eq!(ended, Ended::Cut);
}

#[test]
fn windows_that_are_opened_without_end_end_the_connection() {
    let ended = under("window updates", |peer| {
        peer.flood(100_000, |_| frame(WINDOW_UPDATE, 0, 0, &0x0100_0000_u32.to_be_bytes()))
    });
    assert_eq!(ended, Ended::Cut);
}

#[test]
fn calls_that_are_never_read_have_a_bound() {
    let fields = call(LIST);
    let ended = under("calls", |peer| {
        peer.flood(200_000, |number| {
            let opened = frame(HEADERS, END_HEADERS, odd(number), &fields);
            [opened, frame(DATA, END_STREAM, odd(number), &message(b""))].concat()
        })
    });
    assert_ne!(ended, Ended::Taken);
}

#[test]
fn requests_that_are_never_whole_have_a_bound() {
    let fields = call(PRODUCE);
    // A thousand calls that say they are 8 MB each, and send some of it.
    let begun = [&[0][..], &8_000_000_u32.to_be_bytes(), &[0; 12_000]].concat();
    under("half requests", |peer| {
        peer.flood(1_000, |number| {
            let opened = frame(HEADERS, END_HEADERS, odd(number), &fields);
            [opened, frame(DATA, 0, odd(number), &begun)].concat()
        })
    });
}

#[test]
fn a_peer_that_says_good_bye_and_goes_on_harms_nobody() {
    under("goaway", |peer| peer.flood(100_000, |_| frame(GOAWAY, 0, 0, &[0; 8])));
}

#[test]
fn connections_that_say_nothing_are_ended_and_others_are_served_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = logmill().command(["serve", "--listen", "127.0.0.1:0", "--stall-timeout-ms", "1000"]);
    command.args(["--limit", "max_connections=100", "--data-dir"]).arg(dir.path().join("data"));
    let node = Node::from_command(command);
    let program = logmill().at(node.url());
    let before = rss_anon(node.pid());
    let mut silent: Vec<Peer> = (0..100).map(|_| Peer::silent(node.url())).collect();
    let refused = program.run(["topic", "list"]);
    assert!(refused.code == 0 || refused.stderr.contains("max_connections"), "{refused:?}");
    for peer in &mut silent {
        assert!(peer.is_cut(Duration::from_secs(30)));
    }
    program.ok(["topic", "create", "t"]);
    serves(&program);
    let after = rss_anon(node.pid());
    println!("100 silent connections: RssAnon {} KiB before, {} KiB after", before / 1024, after / 1024);
    assert!(after < before + ROOM);
    assert_eq!(node.terminate(), 0);
}
