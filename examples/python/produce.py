#!/usr/bin/env python3
"""Puts each line of standard input into a topic, as a record."""

import json
import signal
import sys

from client import Failure, Node
from command_line import arguments, run
from logmill.v1.produce_pb2 import Record
from producer import Producer, partition_of

# What arrives at once is sent at once, up to so much.
READ_BYTES = 16 << 10
MAX_LINE_BYTES = 8 << 20


def lines_as_they_come():
    """Lists of lines, without waiting for more than there is."""
    rest = b""
    while chunk := sys.stdin.buffer.read1(READ_BYTES):
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise Failure("a line is longer than 8 MiB, which no record can be")
        if lines and len(lines[0]) > READ_BYTES:
            # A batch has to fit in what a topic takes at once.
            yield [lines.pop(0)]
        if lines:
            yield lines
    if rest:
        yield [rest]


def main():
    parser = arguments(__doc__)
    parser.add_argument("topic")
    parser.add_argument("--key", help="the key of all records")
    options = parser.parse_args()

    producer = Producer(Node(options.server), options.topic)
    key = partition = None
    if options.key is not None:
        key = options.key.encode()
        partition = partition_of(key, producer.partition_count)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        for lines in lines_as_they_come():
            producer.send([Record(key=key, value=line) for line in lines], partition)
    except KeyboardInterrupt:
        pass  # What was read until now is still to be acknowledged.
    producer.flush()
    print(json.dumps({"produced": producer.produced}))


run(main)
