#!/usr/bin/env python3
"""Messages in real time: produced, consumed, processed, stored and forwarded, with rate and delay.

Message i of a run, from 0 on, has the value i * 37 % 101. Those of 50 and more are kept, times ten.
"""

import contextlib
import json
import os
import sqlite3
import statistics
import sys
import threading
import time
import uuid
from pathlib import Path

from client import PROGRAM, Failure, Node
from command_line import arguments, positive, run
from environment import HERE
from logmill.v1.produce_pb2 import Record
from logmill.v1.topics_pb2 import CreateTopicRequest
from member import Member
from producer import Producer

TOPIC, RESULTS, GROUP = "test_topic", "test_results", "realtime"
BURST = 200
# So many messages are sent ahead of what is done; with more, the delay would be that of a queue.
AHEAD = 1_000


def now_ms():
    return time.time_ns() // 1_000_000


def create_topic(node, name):
    """Creates the topic, unless it is there from an earlier run."""
    try:
        node.ask(node.topics.CreateTopic, CreateTopicRequest(name=name, partitions=1))
    except Failure as failure:
        if failure.reason != "TOPIC_EXISTS":
            raise


def produce(producer, run_id, count, member, figures):
    """Sends the messages of a run, and waits until they are on disk."""
    try:
        for start in range(0, count, BURST):
            figures.wait_for(start - AHEAD)
            contents = (
                {"run": run_id, "number": number, "value": number * 37 % 101}
                for number in range(start, min(start + BURST, count))
            )
            producer.send(
                [Record(value=json.dumps(it).encode(), timestamp_ms=now_ms()) for it in contents]
            )
        producer.flush()
    except Failure as failure:
        member.stop(failure)


def read(record):
    """The run and the value of a message; None and 0 for what others have put into the topic."""
    try:
        match json.loads(record.value):
            case {"run": str(run_id), "value": int(value)} if run_id.isascii() and value <= 100:
                return run_id, value
    except (ValueError, RecursionError):
        pass
    return None, 0


class Store:
    """Results in memory, in a file, and in SQLite; each once, though a killed run's come again.

    A row's key is the place of its message. The file's length is committed with the rows: what a
    killed run wrote beyond it is cut off. A run that was taken over and does not know it yet may
    still write: so nothing outside of a transaction.
    """

    def __init__(self, directory):
        directory.mkdir(parents=True, exist_ok=True)
        self.memory = {}
        self._database = sqlite3.connect(directory / "results.db", timeout=30, isolation_level=None)
        self._database.executescript(
            """
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = FULL;
            CREATE TABLE IF NOT EXISTS results (
                topic_id TEXT, partition INTEGER, offset INTEGER,
                run TEXT NOT NULL, value INTEGER NOT NULL,
                PRIMARY KEY (topic_id, partition, offset)
            );
            CREATE TABLE IF NOT EXISTS file (length_bytes INTEGER NOT NULL);
            INSERT INTO file SELECT 0 WHERE NOT EXISTS (SELECT * FROM file);
            """
        )
        self._file = (directory / "results.jsonl").open("ab")

    def add(self, unit, results):
        """Stores results by the offsets of their messages; on disk when it returns."""
        partition = (unit.topic_id, unit.partition)
        rows = [(*partition, offset, *result) for offset, result in results.items()]
        self.memory.update({row[:3]: row[3:] for row in rows})
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            length_bytes = self._one("SELECT length_bytes FROM file")
            last = self._one(
                "SELECT MAX(offset) FROM results WHERE topic_id = ? AND partition = ?", *partition
            )
            new = [row for row in rows if last is None or row[2] > last]
            length_bytes = self._write(length_bytes, new)
            self._database.executemany("INSERT INTO results VALUES (?, ?, ?, ?, ?)", new)
            self._database.execute("UPDATE file SET length_bytes = ?", (length_bytes,))

    def _write(self, length_bytes, rows):
        """Appends lines where the file has to end; answers where it ends then."""
        if os.fstat(self._file.fileno()).st_size < length_bytes:
            raise Failure(f"{self._file.name} has lost lines: use another --dir")
        self._file.truncate(length_bytes)
        lines = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
        self._file.write(lines)
        self._file.flush()
        os.fsync(self._file.fileno())
        return length_bytes + len(lines)

    def count(self, run_id):
        return self._one("SELECT COUNT(*) FROM results WHERE run = ?", run_id)

    def close(self):
        self._database.close()
        self._file.close()

    def _one(self, query, *parameters):
        return self._database.execute(query, parameters).fetchone()[0]


class Figures:
    """What a run has done, by the steps that were acknowledged; shows rate and delay meanwhile.

    A terminal has them in one line, anything else a line each second.
    """

    def __init__(self, run_id, count):
        self.consumed = self.forwarded = self.others = 0
        self._run_id = run_id
        self._count = count
        self._delays_ms = []
        self._changed = threading.Condition()
        self._took_s = 0.0
        self.begin()

    def begin(self):
        self._began_s = self._shown_s = time.monotonic()

    def add(self, messages, results):
        done_ms = now_ms()
        delays_ms = [done_ms - sent_ms for sent_ms, run_id, _ in messages if run_id == self._run_id]
        self._delays_ms += delays_ms
        with self._changed:
            self.consumed += len(delays_ms)
            self._changed.notify()
        self.others += len(messages) - len(delays_ms)
        self.forwarded += sum(run_id == self._run_id for run_id, _ in results.values())
        self._took_s = time.monotonic() - self._began_s
        if delays_ms:
            self._show(statistics.median(delays_ms))

    def is_complete(self):
        return self.consumed == self._count

    def progress(self):
        return f"{self.consumed} of {self._count} messages"

    def wait_for(self, consumed):
        with self._changed:
            self._changed.wait_for(lambda: self.consumed >= consumed)

    def _show(self, delay_ms):
        is_terminal, is_last = sys.stderr.isatty(), self.is_complete()
        now_s = time.monotonic()
        if not is_last and now_s - self._shown_s < (0.1 if is_terminal else 1):
            return
        self._shown_s = now_s
        rate = self.consumed / self._took_s
        line = (
            f"{PROGRAM}: {self.consumed} of {self._count}: R = {rate:.0f}/s, D = {delay_ms:.0f} ms"
        )
        start, end = ("\x1b[K", "\n" if is_last else "\r") if is_terminal else ("", "\n")
        sys.stderr.write(start + line + end)
        sys.stderr.flush()

    def all(self, produced, store):
        values = [value for run_id, value in store.memory.values() if run_id == self._run_id]
        return {
            "produced": produced,
            "consumed": self.consumed,
            "kept": len(values),
            "stored": store.count(self._run_id),
            "forwarded": self.forwarded,
            "sum": sum(values),
            "rate_per_s": round(self.consumed / self._took_s, 1) if self.consumed else None,
            "delay_ms_p50": statistics.median(self._delays_ms) if self.consumed else None,
        }


def work(member, producer, store, figures):
    """Does what comes, until all of the run is done or the member is stopped."""
    for batch in member.batches():
        messages = [(record.timestamp_ms, *read(record)) for record in batch.records]
        offsets = (record.offset for record in batch.records)
        results = {
            offset: (whose, value * 10)
            for offset, (_, whose, value) in zip(offsets, messages, strict=True)
            if value >= 50
        }
        # Before the step, which moves the group on: a run that is killed here has them again.
        store.add(batch.unit, results)
        forwards = [forwarded(batch.unit, *result) for result in results.items()]
        if member.commit_step(batch, RESULTS, forwards):
            figures.add(messages, results)
        if figures.is_complete():
            break
    producer.flush()  # The last acknowledgement may come behind the record.


def forwarded(unit, offset, result):
    key, value = f"{unit.name}/{offset}", json.dumps(result)
    return Record(key=key.encode(), value=value.encode())


def main():
    parser = arguments(__doc__)
    parser.add_argument("--count", type=positive, default=1_000, metavar="N", help="%(default)s")
    parser.add_argument("--json", action="store_true", help="the figures as a JSON object")
    parser.add_argument("--dir", type=Path, default=HERE / "data", help="%(default)s")
    options = parser.parse_args()

    node = Node(options.server)
    for name in (TOPIC, RESULTS):
        create_topic(node, name)
    run_id = uuid.uuid4().hex
    figures = Figures(run_id, options.count)
    try:
        producer = Producer(node, TOPIC)
        # With an instance id, a run that is killed and repeated has its partitions back at once.
        with (
            contextlib.closing(Store(options.dir)) as store,
            Member(node, GROUP, TOPIC, instance_id="realtime") as member,
        ):
            # Messages that are sent before could be done by a run that this one takes over from.
            member.wait_for_unit()
            figures.begin()
            what = (producer, run_id, options.count, member, figures)
            threading.Thread(target=produce, args=what, daemon=True).start()
            work(member, producer, store, figures)
            told = figures.all(producer.produced, store)
    except sqlite3.Error as error:
        raise Failure(f"{options.dir / 'results.db'}: {error}") from None
    except Failure as failure:
        if failure.reason != "MEMBER_UNKNOWN":
            raise
        why = f"another {PROGRAM} has taken over, or this one was not heard of for too long"
        raise Failure(f"{why}; it ends after {figures.progress()}") from None
    if figures.others:
        others = f"{figures.others} more were done, of earlier runs or of others"
        sys.stderr.write(f"{PROGRAM}: {others}\n")
    if options.json:
        print(json.dumps(told))
    else:
        for name, value in told.items():
            print(f"{name:<12} {value!s:>12}")
    if not figures.is_complete():
        raise Failure(f"stopped after {figures.progress()}")


run(main)
