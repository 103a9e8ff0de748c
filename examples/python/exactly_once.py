#!/usr/bin/env python3
"""Copies a topic to another, in capital letters and without empty records; each exactly once."""

import json

from client import Node
from command_line import arguments, positive, run
from logmill.v1.produce_pb2 import Record
from member import Member


def processed(records):
    """What becomes of records; the same however often it is done."""
    for record in records:
        if record.value:
            yield Record(
                key=record.key if record.HasField("key") else None,
                value=record.value.upper(),
                headers=record.headers,
                timestamp_ms=record.timestamp_ms,
            )


def main():
    parser = arguments(__doc__)
    parser.add_argument("source", metavar="FROM")
    parser.add_argument("target", metavar="TO")
    parser.add_argument("--group", required=True, help="shares the work among its members")
    parser.add_argument("-n", type=positive, metavar="N", help="end after N records of FROM")
    options = parser.parse_args()
    if options.source == options.target:
        parser.error("FROM and TO have to be different topics: what is written would be read again")

    node = Node(options.server)
    # That it is there is better known now than at the first step.
    node.partition_count(options.target)
    steps = read = written = 0
    with Member(node, options.group, options.source) as member:
        for batch in member.batches(options.n):
            output = list(processed(batch.records))
            # The records and how far the group has read: one effect, or none.
            if member.commit_step(batch, options.target, output):
                steps += 1
                read += len(batch.records)
                written += len(output)
    print(json.dumps({"steps": steps, "read": read, "written": written}))


run(main)
