"""What every program needs: the connection to a node, its errors, another attempt, and a producer."""

import environment  # noqa: F401, I001  (has to come before grpc and the stubs)

import argparse
import os
import random
import re
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from logmill.v1 import produce_pb2 as produce
from logmill.v1.groups_pb2_grpc import GroupServiceStub
from logmill.v1.node_pb2 import DescribeNodeRequest
from logmill.v1.node_pb2_grpc import NodeServiceStub
from logmill.v1.produce_pb2 import Record  # noqa: F401  (for the programs)
from logmill.v1.produce_pb2_grpc import ProduceServiceStub
from logmill.v1.topics_pb2 import DescribeTopicRequest
from logmill.v1.topics_pb2_grpc import TopicServiceStub
from logmill.v1.transactions_pb2_grpc import TransactionServiceStub

CALL_TIMEOUT_S = 10
# For so long a node that does not answer is tried again.
GIVE_UP_AFTER_S = 30
# So many batches of a producer the node knows again.
MAX_UNANSWERED = 64
PROGRAM = Path(sys.argv[0]).name

# What another attempt may heal: reasons of docs/errors.md, and codes of gRPC where there is none.
PASSING = {
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "DISK_FULL",
    "INTERNAL",
    "INTERNAL_FAULT",
    "IO_FAILED",
    "LIMIT_EXCEEDED",
    "MEMBER_UNKNOWN",
    "NODE_CLOSING",
    "OUTCOME_UNKNOWN",
    "PARTITION_REOPENING",
    "PRECEDING_FAILED",
    "STALE_ASSIGNMENT",
    "TRANSACTION_ENDING",
    "UNAVAILABLE",
    "UNKNOWN",
}


class Failure(Exception):
    """What went wrong, as a sentence; programs decide by its reason."""

    def __init__(self, reason, sentence):
        super().__init__(sentence)
        self.reason = reason

    @classmethod
    def in_reply(cls, error):
        return cls(error.reason, error.message)

    @classmethod
    def of_call(cls, error):
        """The node's reason and sentence, or what gRPC knows."""
        info = ErrorInfo()
        status = rpc_status.from_call(error)
        if status is not None and any(detail.Unpack(info) for detail in status.details):
            return cls(info.reason, error.details())
        code, what = error.code().name, error.details().rpartition("last error: ")[2]
        advice = "start one with `logmill serve`, or correct the address"
        return cls(code, f"no Logmill node answers ({code}: {what}): {advice}")


def run(main):
    """Runs a program; what it cannot help ends it with a sentence."""
    try:
        main()
        sys.stdout.flush()
    except Failure as failure:
        sys.exit(f"{PROGRAM}: {failure}")
    except BrokenPipeError:
        # Python would try to write what is left when it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(f"{PROGRAM}: nobody reads what it prints any more")
    except OSError as error:
        sys.exit(f"{PROGRAM}: {error.filename}: {error.strerror}")
    except KeyboardInterrupt:
        sys.exit(130)


def arguments(description):
    """The arguments that every program has."""
    parser = argparse.ArgumentParser(description=description)
    default = "http://127.0.0.1:7070"
    parser.add_argument("--server", type=address, default=default, metavar="URL", help=default)
    return parser


def address(url):
    if not re.fullmatch(r"(http://)?([^/:\s]+|\[[^/\s]+\]):\d{1,5}/?", url):
        advice = "give it as http://HOST:PORT"
        raise argparse.ArgumentTypeError(f"{url!r} is not the address of a node: {advice}")
    return url.removeprefix("http://").rstrip("/")


def positive(text):
    if not re.fullmatch("0*[1-9][0-9]{0,17}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


class Node:
    """A connection to a node, and its services."""

    OPTIONS = (
        # Calls are sent again here, where it is known which may be.
        ("grpc.enable_retries", 0),
        # A node is on this machine.
        ("grpc.enable_http_proxy", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # A peer that vanished without a word is noticed after both together.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        # A single record can be larger than gRPC's 4 MB.
        ("grpc.max_receive_message_length", 64 << 20),
    )

    def __init__(self, server):
        channel = grpc.insecure_channel(server, self.OPTIONS)
        self.groups = GroupServiceStub(channel)
        self.produce = ProduceServiceStub(channel)
        self.topics = TopicServiceStub(channel)
        self.transactions = TransactionServiceStub(channel)
        self.ask(NodeServiceStub(channel).DescribeNode, DescribeNodeRequest())

    def ask(self, rpc, request):
        try:
            return rpc(request, timeout=CALL_TIMEOUT_S)
        except grpc.RpcError as error:
            raise Failure.of_call(error) from None

    def partition_count(self, topic):
        described = self.ask(self.topics.DescribeTopic, DescribeTopicRequest(name=topic))
        return described.topic.partition_count


class Patience:
    """How long to wait between attempts, and when to give up."""

    def __init__(self):
        self.reset()

    def reset(self):
        """Something has worked."""
        self._since_s = None
        self._pause_s = 0.05

    def pause_s(self, failure):
        """The wait before the next attempt; raises the failure if there is none."""
        now_s = time.monotonic()
        is_first = self._since_s is None
        if is_first:
            self._since_s = now_s
        if failure.reason not in PASSING or now_s - self._since_s > GIVE_UP_AFTER_S:
            raise failure
        if is_first:
            sys.stderr.write(f"{PROGRAM}: {failure}; trying again\n")
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, 2)
        # By chance, so that clients that lost their node together do not come back together.
        return pause_s * random.uniform(0.5, 1)


class Producer:
    """Puts records into a topic, each once: what may be lost is sent again with the same number.

    `_unanswered` has the requests in the order sent. A stream begins with all of them, and its
    first failure ends it: so the next one goes on with what has failed, and nothing overtakes it.
    """

    def __init__(self, node, topic):
        self.partition_count = node.partition_count(topic)
        self.produced = 0
        self._node = node
        self._topic = topic
        self._id = node.ask(node.produce.InitProducerId, produce.InitProducerIdRequest())
        self._changed = threading.Condition()
        self._sequences = defaultdict(int)
        self._last_id = 0
        self._unanswered = {}
        self._stream = None
        self._failure = None
        threading.Thread(target=self._run, daemon=True).start()

    def send(self, records, partition=None):
        """Sends records as one batch, to each partition in turn unless one is named.

        Waits while much is unanswered.
        """
        with self._changed:
            self._wait_for(lambda: len(self._unanswered) < MAX_UNANSWERED)
            self._last_id += 1
            if partition is None:
                partition = self._last_id % self.partition_count
            sequence = self._sequences[partition]
            self._sequences[partition] = (sequence + len(records)) % (1 << 31)
            request = produce.ProduceRequest(topic=self._topic, partition=partition)
            request.records.records.extend(records)
            request.producer.id = self._id.producer_id
            request.producer.epoch = self._id.producer_epoch
            request.producer.base_sequence = sequence
            self._unanswered[self._last_id] = request
            self._changed.notify_all()

    def flush(self):
        """Waits until all that was sent is on disk."""
        with self._changed:
            self._wait_for(lambda: not self._unanswered)

    def _wait_for(self, condition):
        self._changed.wait_for(lambda: self._failure or condition())
        if self._failure:
            raise self._failure

    def _run(self):
        patience = Patience()
        try:
            while True:
                with self._changed:
                    self._changed.wait_for(lambda: self._unanswered)
                failure = self._send_and_hear(patience)
                # A stream that breaks while nothing is to be sent is no trouble.
                if self._unanswered:
                    time.sleep(patience.pause_s(failure))
        except Failure as failure:
            with self._changed:
                self._failure = failure
                self._changed.notify_all()

    def _send_and_hear(self, patience):
        """Opens a stream, and answers why it ended."""
        self._stream = stream = object()
        replies = self._node.produce.ProduceStream(self._requests(stream))
        try:
            for reply in replies:
                if reply.WhichOneof("reply") == "started":
                    continue
                for result in reply.answer.results:
                    if result.HasField("error"):
                        return Failure.in_reply(result.error)
                patience.reset()
                with self._changed:
                    request = self._unanswered.pop(reply.answer.correlation_id)
                    self.produced += len(request.records.records)
                    self._changed.notify_all()
            return Failure("UNAVAILABLE", "the node has ended the stream")
        except grpc.RpcError as error:
            return Failure.of_call(error)
        finally:
            replies.cancel()
            with self._changed:
                self._stream = None
                self._changed.notify_all()

    def _requests(self, stream):
        """What goes out on a stream; gRPC asks for it in a thread of its own."""
        sent_id = 0
        while True:
            with self._changed:
                while self._stream is stream and sent_id == self._last_id:
                    self._changed.wait()
                if self._stream is not stream:
                    return
                new = [(id, request) for id, request in self._unanswered.items() if id > sent_id]
                sent_id = self._last_id
            for id, request in new:
                yield produce.ProduceStreamRequest(correlation_id=id, request=request)


def partition_of(key, partition_count):
    """Where the node and Kafka's clients put a key: by murmur2.

    The node does that itself only for records without a number.
    """
    mask, factor = 0xFFFFFFFF, 0x5BD1E995
    whole = len(key) & ~3
    value = 0x9747B28C ^ len(key)
    for at in range(0, whole, 4):
        word = int.from_bytes(key[at : at + 4], "little") * factor & mask
        value = (value * factor & mask) ^ ((word ^ word >> 24) * factor & mask)
    if rest := key[whole:]:
        value = (value ^ int.from_bytes(rest, "little")) * factor & mask
    value = (value ^ value >> 13) * factor & mask
    return ((value ^ value >> 15) & 0x7FFFFFFF) % partition_count
