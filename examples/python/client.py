"""What every program needs: the connection to a node, its errors, and another attempt."""

import environment  # noqa: F401, I001  (has to come before grpc and the stubs)

import random
import sys
import time
from pathlib import Path

import grpc
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_status import rpc_status

from logmill.v1.groups_pb2_grpc import GroupServiceStub
from logmill.v1.node_pb2 import DescribeNodeRequest
from logmill.v1.node_pb2_grpc import NodeServiceStub
from logmill.v1.produce_pb2_grpc import ProduceServiceStub
from logmill.v1.topics_pb2 import DescribeTopicRequest
from logmill.v1.topics_pb2_grpc import TopicServiceStub
from logmill.v1.transactions_pb2_grpc import TransactionServiceStub

CALL_TIMEOUT_S = 10
# For so long a node that does not answer is tried again.
GIVE_UP_AFTER_S = 30
PROGRAM = Path(sys.argv[0]).name

# What another attempt may heal: as in docs/errors.md, "May it be sent again?".
PASSING = {
    "DISK_FULL",
    "INTERNAL_FAULT",
    "IO_FAILED",
    "LIMIT_EXCEEDED",
    "MEMBER_UNKNOWN",
    "NODE_CLOSING",
    "OUTCOME_UNKNOWN",
    "PARTITION_REOPENING",
    "PRECEDING_FAILED",
    "TRANSACTION_ENDING",
    "UNIT_UNDECLARED",
}
# What is over one of these limits is so every time.
LASTING_LIMITS = {
    "max_batch_bytes",
    "max_headers_per_request",
    "max_records_per_request",
    "max_commit_partitions",
}


class Failure(Exception):
    """What went wrong, as a sentence; programs decide by its reason and its metadata.

    Without a reason: nothing is known of what the node did, as when a connection breaks.
    """

    def __init__(self, sentence, reason=None, metadata=None):
        super().__init__(sentence)
        self.reason = reason
        self.metadata = metadata or {}

    @classmethod
    def in_reply(cls, error):
        return cls(error.message, error.reason, error.metadata)

    @classmethod
    def of_call(cls, error):
        """The node's reason and sentence, or what gRPC knows."""
        info = ErrorInfo()
        status = rpc_status.from_call(error)
        if status is not None and any(detail.Unpack(info) for detail in status.details):
            return cls(error.details(), info.reason, info.metadata)
        code, what = error.code().name, error.details().rpartition("last error: ")[2]
        advice = "start one with `logmill serve`, or correct the address"
        return cls(f"no Logmill node answers ({code}: {what}): {advice}")

    def may_pass(self):
        if self.reason == "LIMIT_EXCEEDED":
            return self.metadata.get("limit") not in LASTING_LIMITS
        return self.reason is None or self.reason in PASSING


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
        if not failure.may_pass() or now_s - self._since_s > GIVE_UP_AFTER_S:
            raise failure
        if is_first:
            sys.stderr.write(f"{PROGRAM}: {failure}; trying again\n")
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, 2)
        # By chance, so that clients that lost their node together do not come back together.
        return pause_s * random.uniform(0.5, 1)
