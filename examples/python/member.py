"""A member of a group that shares the partitions of a topic, and what it commits."""

import math
import queue
import signal
import threading
import time
from dataclasses import dataclass

import grpc

from client import CALL_TIMEOUT_S, Failure, Patience
from logmill.v1 import groups_pb2 as groups
from logmill.v1 import transactions_pb2 as transactions
from logmill.v1.fetch_pb2 import FetchedRecord, SubscribeCredit

# A member that was killed keeps its share of the work for so long.
SESSION_TIMEOUT_MS = 10_000
# A stream that held so long was a good one: its end does not count to the failures before it.
GOOD_STREAM_S = 5
CREDIT_BYTES = 1 << 20
# The node takes 4 MiB and more in one message of a step; this is a good size.
STEP_MESSAGE_BYTES = 1 << 20


@dataclass
class Unit:
    """A partition that is the member's, in the epoch of its assignment."""

    name: str
    epoch: int
    topic_id: str
    partition: int
    next_offset: int
    next_step: int
    is_revoked: bool = False

    @classmethod
    def of(cls, assigned):
        [partition] = assigned.partitions
        next_step = assigned.last_step + 1 if assigned.HasField("last_step") else 0
        place = (partition.topic_id, partition.partition, partition.committed_offset)
        return cls(assigned.unit.unit, assigned.unit.epoch, *place, next_step)

    def in_epoch(self):
        return groups.UnitEpoch(unit=self.name, epoch=self.epoch)


@dataclass
class Batch:
    """Records of a unit, and where the group goes on when they are done."""

    unit: Unit
    records: list[FetchedRecord]
    goes_on: groups.OffsetToCommit


class Member:
    """A member, while it is entered. SIGINT and SIGTERM end its batches.

    What the node says lies in `_inbox` until it is taken in: between two batches, and while a
    commit waits. So a unit goes to another member when nothing of it is in hand. Signs of life
    come from gRPC's own thread, however long the work takes.
    """

    def __init__(self, node, group, topic, instance_id=None):
        node.partition_count(topic)  # A group would wait for a topic that is not there.
        self.is_stopped = False
        self._node = node
        self._join = groups.JoinGroup(group=group, topics=[topic], instance_id=instance_id)
        self._join.session_timeout_ms = SESSION_TIMEOUT_MS
        self._join.credit_bytes = CREDIT_BYTES
        self._inbox = queue.SimpleQueue()
        self._outgoing = queue.SimpleQueue()
        self._stream = 0
        self._listener = None
        self._has_joined = self._is_stale = False
        self._opened_s = time.monotonic()
        self._patience = Patience()
        self._units = {}
        self._pending = {}
        self._ungranted_bytes = 0
        self._done_records = 0
        self._commit_id = 0
        self._answers = {}

    def __enter__(self):
        def stop(number, _frame):
            signal.signal(number, signal.SIG_DFL)  # The second one does not wait.
            self.stop()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        self._open()
        return self

    def __exit__(self, *_):
        # The others have its units at once then, and not when its session is over.
        self._say(leave=groups.LeaveGroup())
        self._outgoing.put(None)
        self._listener.join(timeout=1)

    def stop(self, failure=None):
        """Ends the batches, with a failure if there is one; from any thread."""
        self._inbox.put((None, failure))

    def wait_for_unit(self):
        """From then on, what others commit who had the unit before does not count."""
        while not self._units and not self.is_stopped:
            self._hear()

    def batches(self, limit=None):
        """What comes, until so many records are committed; each to be committed before the next."""
        limit = limit or math.inf
        while self._done_records < limit and not self.is_stopped:
            self._settle()
            if self._pending and self._inbox.empty():
                batch = self._take(limit - self._done_records)
                if batch.records:
                    yield batch
            else:
                self._hear()

    def commit(self, batch):
        """Commits how far a batch goes: true when it is on disk, false if the unit is lost."""
        commit = groups.CommitOffsets(unit=batch.unit.in_epoch(), offsets=[batch.goes_on])
        said_on = None
        while self._has_joined or not self.is_stopped:
            if self._has_joined and said_on != self._stream:
                said_on = self._stream
                self._commit_id = commit.correlation_id = self._commit_id + 1
                self._say(commit=commit)
            self._hear()
            answer = self._answers.pop(self._commit_id, None)
            if answer is None:
                continue
            if not answer.HasField("error"):
                return self._has_done(batch)
            failure = Failure.in_reply(answer.error)
            if failure.reason == "STALE_ASSIGNMENT":
                return self._has_lost(batch)
            self._open(failure)
        return False

    def commit_step(self, batch, topic, records):
        """Commits records for a topic and how far a batch goes, as one: true when both are there.

        False if the unit is lost: whoever has it now makes the records again.
        """
        unit = batch.unit
        header = transactions.StepHeader(group=self._join.group, unit=unit.in_epoch())
        header.sequence = unit.next_step
        header.offsets.append(batch.goes_on)
        header.topics.extend([topic] if records else [])
        header.total_bytes = sum(map(data_bytes, records))
        messages = [
            transactions.CommitStepRequest(header=header),
            *step_messages(topic, records),
        ]
        while True:
            try:
                self._node.transactions.CommitStep(iter(messages), timeout=CALL_TIMEOUT_S)
                unit.next_step += 1
                return self._has_done(batch)
            except grpc.RpcError as error:
                failure = Failure.of_call(error)
            if failure.reason == "STALE_ASSIGNMENT":
                return self._has_lost(batch)
            # The same step again: if only the answer was lost, this one is answered like the first.
            self._pause(self._patience.pause_s(failure))
            if self.is_stopped:
                return False

    def _has_done(self, batch):
        self._patience.reset()
        self._done_records += len(batch.records)
        return True

    def _has_lost(self, batch):
        """Drops the unit; the node says what is assigned instead, or why the member is none."""
        self._drop(batch.unit.in_epoch())
        self._is_stale = True
        return False

    def _drop(self, unit_epoch):
        if unit := self._owned(unit_epoch):
            del self._units[unit.name]
            self._pending.pop(unit.name, None)

    def _open(self, after=None):
        """Opens a stream, in place of one that has failed.

        The member keeps its units, and the node goes on at what is committed.
        """
        self._outgoing.put(None)
        self._stream += 1  # Nothing of the former one is heard any more.
        self._has_joined = False
        self._pending.clear()
        self._ungranted_bytes = 0
        if after is not None:
            is_unknown = after.reason == "MEMBER_UNKNOWN"
            if self._join.HasField("instance_id") and (is_unknown or self._is_stale):
                # Whoever has come with this id would be driven out in turn.
                raise Failure(str(after), "MEMBER_UNKNOWN")
            if is_unknown:
                self._units.clear()
            if time.monotonic() - self._opened_s > GOOD_STREAM_S:
                self._patience.reset()
            self._pause(self._patience.pause_s(after))
        self._opened_s = time.monotonic()
        self._outgoing = queue.SimpleQueue()
        self._say(join=self._join)
        listens = threading.Thread(target=self._listen, args=(self._stream, self._outgoing))
        listens.daemon = True
        listens.start()
        self._listener = listens

    def _listen(self, stream, outgoing):
        failure = Failure("the node has ended the stream")
        try:
            for reply in self._node.groups.Consume(requests(outgoing)):
                self._inbox.put((stream, reply))
        except grpc.RpcError as error:
            failure = Failure.of_call(error)
        outgoing.put(None)
        self._inbox.put((stream, failure))

    def _say(self, **request):
        self._outgoing.put(groups.ConsumeRequest(**request))

    def _pause(self, seconds):
        until_s = time.monotonic() + seconds
        while not self.is_stopped and (left_s := until_s - time.monotonic()) > 0:
            try:
                self._hear(left_s)
            except queue.Empty:
                return

    def _hear(self, timeout_s=None):
        """Takes in one thing."""
        stream, said = self._inbox.get(timeout=timeout_s)
        if stream is None:
            self.is_stopped = True
            if said is not None:
                raise said
        elif stream != self._stream:
            return
        elif isinstance(said, Failure):
            self._open(said)
        else:
            self._take_in(said)

    def _take_in(self, reply):
        match reply.WhichOneof("reply"):
            case "joined":
                self._has_joined = True
                self._join.member_id = reply.joined.member_id
            case "assigned":
                if unit := self._owned(reply.assigned.unit):
                    unit.is_revoked = False  # It is said again if it is to be given up.
                else:
                    self._is_stale = False
                    unit = Unit.of(reply.assigned)
                    self._units[unit.name] = unit
                    self._pending.pop(unit.name, None)
            case "revoke":
                if unit := self._owned(reply.revoke):
                    unit.is_revoked = True
                    self._pending.pop(unit.name, None)
            case "lost":
                self._drop(reply.lost.unit)
            case "data":
                self._receive(reply.data)
            case "committed":
                self._answers[reply.committed.correlation_id] = reply.committed

    def _owned(self, unit_epoch):
        unit = self._units.get(unit_epoch.unit)
        return unit if unit and unit.epoch == unit_epoch.epoch else None

    def _receive(self, received):
        data = received.data
        if data.HasField("error"):
            # Nothing more comes of it until it is assigned again.
            self._open(Failure.in_reply(data.error))
            return
        size_bytes = sum(map(data_bytes, records_of(data)))
        self._ungranted_bytes += size_bytes
        unit = self._owned(received.unit)
        if unit and not unit.is_revoked:
            self._pending.setdefault(unit.name, []).append((data, size_bytes))

    def _settle(self):
        """Nothing is in hand: grants what is done or dropped, and gives up what others wait for."""
        kept_bytes = sum(size for parts in self._pending.values() for _, size in parts)
        if self._ungranted_bytes > kept_bytes:
            self._say(credit=SubscribeCredit(bytes=self._ungranted_bytes - kept_bytes))
            self._ungranted_bytes = kept_bytes
        for unit in [unit for unit in self._units.values() if unit.is_revoked]:
            del self._units[unit.name]
            self._say(revoked=groups.UnitRevoked(unit=unit.in_epoch()))

    def _take(self, limit):
        """All that has come of a unit, up to a limit."""
        name = next(iter(self._pending))
        unit, parts = self._units[name], self._pending.pop(name)
        came = (record for data, _ in parts for record in records_of(data))
        # After a break, what comes again may have been handed out before.
        records = [record for record in came if record.offset >= unit.next_offset]
        last, _ = parts[-1]
        goes_on = groups.OffsetToCommit(topic=last.topic, partition=last.partition)
        goes_on.offset = last.next_offset
        if len(records) > limit:
            records = records[:limit]
            goes_on.offset = records[-1].offset + 1
        elif last.HasField("last_epoch"):
            goes_on.last_epoch = last.last_epoch
        unit.next_offset = max(unit.next_offset, goes_on.offset)
        return Batch(unit, records, goes_on)


def requests(outgoing):
    """What a member says on a stream, and while it has nothing to say, that it lives."""
    while True:
        try:
            request = outgoing.get(timeout=SESSION_TIMEOUT_MS / 4_000)
        except queue.Empty:
            request = groups.ConsumeRequest(heartbeat=groups.Heartbeat())
        if request is None:
            return
        yield request


def step_messages(topic, records):
    """The records of a step, in messages that are small enough."""
    message = transactions.StepRecords(topic=topic)
    size_bytes = 0
    for record in records:
        message.records.records.append(record)
        size_bytes += record.ByteSize() + 8
        if size_bytes > STEP_MESSAGE_BYTES:
            yield transactions.CommitStepRequest(records=message)
            message, size_bytes = transactions.StepRecords(topic=topic), 0
    if size_bytes:
        yield transactions.CommitStepRequest(records=message)


def records_of(data):
    return (record for chunk in data.chunks for record in chunk.records.records)


def data_bytes(record):
    """The bytes that credit and steps count."""
    size_bytes = len(record.key) + len(record.value)
    for header in record.headers:
        size_bytes += len(header.key.encode()) + len(header.value)
    return size_bytes
