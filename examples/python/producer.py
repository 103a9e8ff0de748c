"""A producer, whose records come once though they are sent again."""

import threading
import time
from collections import defaultdict

import grpc

from client import Failure, Patience
from logmill.v1 import produce_pb2 as produce

# So many batches of a producer the node knows again.
MAX_UNANSWERED = 64


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
            return Failure("the node has ended the stream")
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
