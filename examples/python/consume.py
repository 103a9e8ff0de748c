#!/usr/bin/env python3
"""Prints the values of a topic's records, as a member of a group."""

import sys

from client import Node
from command_line import arguments, positive, run
from member import Member


def main():
    parser = arguments(__doc__)
    parser.add_argument("topic")
    parser.add_argument("--group", required=True, help="shares the topic among its members")
    parser.add_argument("-n", type=positive, metavar="N", help="end after N records")
    options = parser.parse_args()

    with Member(Node(options.server), options.group, options.topic) as member:
        for batch in member.batches(options.n):
            for record in batch.records:
                sys.stdout.buffer.write(record.value + b"\n")
            # Printed before it is committed: a crash in between prints it again, and loses nothing.
            sys.stdout.buffer.flush()
            member.commit(batch)


run(main)
