#!/usr/bin/env python3
"""Makes the golden batches beside this file, with an encoder that is not ours.

The encoder is kafka-python 3.0.12, a Kafka client in pure Python:

    python3 -m venv venv
    venv/bin/pip install kafka-python==3.0.12 python-snappy==0.7.3 lz4==4.4.5 zstandard==0.25.0
    venv/bin/python crates/record/tests/golden/make_golden.py
    venv/bin/python crates/record/tests/golden/make_golden.py --read DIR

The second form reads what this crate wrote, the NAME.CODEC.bin in a directory that the ignored test of golden.rs
filled, and compares it with what went into NAME.

Each batch is `NAME.bin`, described in `batches.json`: its header as that client reads it back, its records as they
were put in (byte strings in hexadecimal, `78*100` for a hundred times that byte, null as null), and `builder`: whether a plain builder fed with the same
records must give the same bytes. A record with `times` stands for so many, each `step_ms` after the one before.
`murmur2.json` holds keys with the partition that the same client gives them.

The client is a producer, so three kinds of batch that only a broker writes are made by its builder and reader with
the broker's part filled in: attribute bits (control, LogAppendTime) before the client computes the CRC, and base
offset and leader epoch, which lie before the CRC, afterwards. Every batch is read back with the client and compared.
The time is fixed, because gzip writes it into its header: a second run changes no byte.
"""

import contextlib
import gzip
import importlib.metadata
import json
import pathlib
import random
import struct
import sys
import unittest.mock

import lz4.frame
import snappy
import zstandard
from kafka.partitioner.default import murmur2
from kafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder

HERE = pathlib.Path(__file__).parent
CLIENT = "kafka-python==3.0.12"
T0 = 1_700_000_000_000
DAY = 86_400_000


class Builder(DefaultRecordBatchBuilder):
    """The client's builder, with attribute bits that only a broker sets."""

    extra_attributes = 0

    def _get_attributes(self, include_compression_type=True):
        return super()._get_attributes(include_compression_type) | self.extra_attributes


def record(timestamp, key=None, value=None, headers=(), **more):
    return {"timestamp": timestamp, "key": key, "value": value, "headers": list(headers), **more}


def plain():
    return [record(T0 + i * 10, b"key-%d" % i, b"value number %d" % i) for i in range(5)]


def nulls():
    return [
        record(T0, None, b"null key"),
        record(T0, b"null value", None),
        record(T0, None, None),
        record(T0, b"", b"empty key"),
        record(T0, b"empty value", b""),
        record(T0, b"", b""),
    ]


def headers():
    return [
        record(T0, b"k", b"no headers"),
        record(T0, b"k", b"duplicate keys, order kept", [("a", b"1"), ("b", b"2"), ("a", b"3"), ("a", b"1")]),
        record(T0, b"k", b"null and empty value", [("null", None), ("empty", b"")]),
        record(T0, b"k", b"empty key", [("", b"x"), ("", None)]),
        record(T0, b"k", b"not ASCII", [("größe-日本-🦀", "größe-日本-🦀".encode())]),
        record(T0, b"k", b"not UTF-8 in the value", [("raw", bytes([0, 255, 128, 254]))]),
        record(T0, b"k", b"long", [("n" * 100, b"v" * 10_000)]),
        record(T0, None, None, [("h%d" % i, b"%d" % i) for i in range(200)]),
    ]


def timestamps():
    return [
        record(T0, b"base", b""),
        record(T0 - 1, b"one ms earlier", b""),
        record(T0 - 64, b"one byte, its smallest", b""),
        record(T0 - 65, b"two bytes", b""),
        record(T0 + 63, b"one byte, its largest", b""),
        record(T0 + 64, b"two bytes", b""),
        record(T0 + 25 * DAY, b"more than 2^31 ms later", b""),
        record(T0 - 25 * DAY, b"more than 2^31 ms earlier", b""),
        record(T0 + 40_000 * DAY, b"a century later", b""),
        record(0, b"the epoch", b""),
        record(-1, b"no timestamp", b""),
        record(-5 * 365 * DAY, b"1965", b""),
    ]


def timestamp_extremes():
    return [
        record(0, None, b"base"),
        record(2**63 - 1, None, b"the largest"),
        record(-(2**63), None, b"the smallest: a delta of ten bytes"),
    ]


def no_timestamps():
    return [record(-1, b"k%d" % i, b"v") for i in range(3)]


def binary():
    return [
        record(T0, bytes([0xFF, 0xFE, 0x80, 0xC0]), b"a key that is not UTF-8"),
        record(T0, bytes(range(256)), bytes(reversed(range(256)))),
        record(T0, b"\0", b"\0\0"),
    ]


def lengths():
    """On both sides of where a length takes one more byte, in keys, values and whole records."""
    sizes = [55, 56, 57, 63, 64, 65, 8182, 8183, 8184, 8191, 8192, 70_000]
    return [record(T0, None, b"x" * n) for n in sizes] + [record(T0, b"y" * n, None) for n in sizes[:9]]


def many():
    return [record(T0, b"k", b"%d" % 7, times=9000, step_ms=250)]


def control(kind):
    """The end of a transaction: https://kafka.apache.org/documentation/#controlbatch"""
    return [record(T0, struct.pack(">hh", 0, kind), struct.pack(">hi", 0, 12))]


def compressible():
    return [record(T0 + i, b"key-%d" % i, b"the same words again and again " * 4) for i in range(20)]


def large():
    """Several blocks of every codec; its lz4 links them, its snappy is xerial's."""
    return [record(T0, b"k", b"%d and so on and so on" % 7, times=9000, step_ms=250)]


def gzip_members(data):
    return gzip.compress(data[:1000], mtime=0) + gzip.compress(data[1000:], mtime=0)


def snappy_bare(data):
    """One block and no framing, as librdkafka sends it."""
    return snappy.compress(data)


def lz4_linked(data):
    """Blocks that reach into the ones before, with every checksum."""
    return lz4.frame.compress(data, block_linked=True, block_size=4, block_checksum=True, content_checksum=True)


def zstd_streamed(data):
    """Without the size of the content in the frame's header, as Kafka's Java client sends it."""
    compressor = zstandard.ZstdCompressor(write_content_size=False).compressobj()
    return compressor.compress(data) + compressor.flush()


BATCHES = {
    "plain": dict(records=plain(), builder=True),
    "nulls": dict(records=nulls(), builder=True),
    "headers": dict(records=headers(), builder=True),
    "timestamps": dict(records=timestamps(), builder=True),
    "timestamp_extremes": dict(records=timestamp_extremes(), builder=True),
    "no_timestamps": dict(records=no_timestamps(), builder=True),
    "binary": dict(records=binary(), builder=True),
    "lengths": dict(records=lengths(), builder=True),
    "many": dict(records=many(), builder=True),
    "idempotent": dict(records=plain(), producer=(4711, 3, 2_147_483_600)),
    "transactional": dict(records=plain(), producer=(2**62 + 1, 32767, 0), transactional=True),
    "control_commit": dict(records=control(1), producer=(4711, 3, -1), transactional=True, extra_attributes=0x20),
    "control_abort": dict(records=control(0), producer=(4711, 3, -1), transactional=True, extra_attributes=0x20),
    "log_append_time": dict(records=timestamps(), extra_attributes=0x08),
    "stored": dict(records=headers(), stamp=(9_007_199_254_740_993, 41)),
    "compacted": dict(records=plain(), offsets=[2, 3, 17, 500, 9_000], stamp=(1_000, 7)),
    "gzip": dict(records=compressible(), codec=DefaultRecordBatchBuilder.CODEC_GZIP),
    "snappy": dict(records=compressible(), codec=DefaultRecordBatchBuilder.CODEC_SNAPPY),
    "lz4": dict(records=compressible(), codec=DefaultRecordBatchBuilder.CODEC_LZ4),
    "zstd": dict(records=compressible(), codec=DefaultRecordBatchBuilder.CODEC_ZSTD),
    "gzip_large": dict(records=large(), codec=DefaultRecordBatchBuilder.CODEC_GZIP),
    "snappy_large": dict(records=large(), codec=DefaultRecordBatchBuilder.CODEC_SNAPPY),
    "lz4_large": dict(records=large(), codec=DefaultRecordBatchBuilder.CODEC_LZ4),
    "zstd_large": dict(records=large(), codec=DefaultRecordBatchBuilder.CODEC_ZSTD),
    "gzip_members": dict(records=large(), codec=DefaultRecordBatchBuilder.CODEC_GZIP, encode=gzip_members),
    "snappy_bare": dict(records=compressible(), codec=DefaultRecordBatchBuilder.CODEC_SNAPPY, encode=snappy_bare),
    "lz4_linked": dict(records=large(), codec=DefaultRecordBatchBuilder.CODEC_LZ4, encode=lz4_linked),
    "zstd_streamed": dict(records=large(), codec=DefaultRecordBatchBuilder.CODEC_ZSTD, encode=zstd_streamed),
}


def unfold(records):
    for r in records:
        for i in range(r.get("times", 1)):
            yield r["timestamp"] + i * r.get("step_ms", 0), r["key"], r["value"], r["headers"]


def make(spec):
    producer_id, producer_epoch, base_sequence = spec.get("producer", (-1, -1, -1))
    builder = Builder(
        magic=2,
        compression_type=spec.get("codec", 0),
        is_transactional=spec.get("transactional", False),
        producer_id=producer_id,
        producer_epoch=producer_epoch,
        base_sequence=base_sequence,
        batch_size=2**31 - 1,
    )
    builder.extra_attributes = spec.get("extra_attributes", 0)
    offsets = spec.get("offsets")
    for i, (timestamp, key, value, hs) in enumerate(unfold(spec["records"])):
        assert builder.append(offsets[i] if offsets else i, timestamp, key, value, hs) is not None
    raw = builder.build()
    if "stamp" in spec:
        base_offset, epoch = spec["stamp"]
        struct.pack_into(">q", raw, 0, base_offset)
        struct.pack_into(">i", raw, 12, epoch)
    return bytes(raw)


def encoding(spec):
    """Another writer of the same codec in place of the client's."""
    if "encode" not in spec:
        return contextlib.nullcontext()
    codec = ["none", "gzip", "snappy", "lz4", "zstd"][spec["codec"]]
    return unittest.mock.patch(f"kafka.record.default_records.{codec}_encode", spec["encode"])


def read_back(raw, spec):
    """What the client itself reads, after comparing it with what was put in."""
    batch = DefaultRecordBatch(raw)
    assert batch.validate_crc() and batch.size_in_bytes == len(raw)
    header = {
        "base_offset": batch.base_offset,
        "total_len": batch.size_in_bytes,
        "leader_epoch": batch.leader_epoch,
        "crc": batch.crc,
        "attributes": batch.attributes,
        "compression": ["none", "gzip", "snappy", "lz4", "zstd"][batch.compression_type],
        "log_append_time": batch.timestamp_type == batch.LOG_APPEND_TIME,
        "transactional": batch.is_transactional,
        "control": batch.is_control_batch,
        "last_offset_delta": batch.last_offset_delta,
        "base_timestamp": batch.first_timestamp,
        "max_timestamp": batch.max_timestamp,
        "producer_id": batch.producer_id,
        "producer_epoch": batch.producer_epoch,
        "base_sequence": batch.base_sequence,
        "record_count": batch.records_count,
    }
    read = list(batch)
    put = list(unfold(spec["records"]))
    assert len(read) == len(put)
    for r, (timestamp, key, value, hs) in zip(read, put):
        expected = header["max_timestamp"] if header["log_append_time"] else timestamp
        assert (r.timestamp, r.key, r.value, r.headers) == (expected, key, value, hs), r
    return header


def hexed(data):
    if data is None:
        return None
    if len(data) > 40 and len(set(data)) == 1:
        return f"{data[:1].hex()}*{len(data)}"
    return data.hex()


def describe(r):
    hs = [[key, hexed(value)] for key, value in r["headers"]]
    return {**r, "key": hexed(r["key"]), "value": hexed(r["value"]), "headers": hs}


def murmur2_vectors():
    rng = random.Random(2)
    keys = [b"", b"a", b"abc", b"21", b"foobar", "größe".encode(), b"\xff" * 4, b"\x80\x81\x82", b"earthquake-us7000abcd"]
    keys += [bytes(rng.randrange(256) for _ in range(n)) for n in list(range(1, 33)) + [100, 1000]]
    # Without taking a remainder the whole positive hash is seen: 2^31 partitions.
    return [[k.hex(), murmur2(k) & 0x7FFFFFFF, [[n, (murmur2(k) & 0x7FFFFFFF) % n] for n in (1, 3, 4, 12, 1000)]] for k in keys]


def write_json(name, lines, opening, closing):
    """One entry a line, so that a change can be read."""
    text = opening + "\n" + ",\n".join(lines) + "\n" + closing + "\n"
    json.loads(text)
    (HERE / name).write_text(text, encoding="utf-8")


def read_ours(directory):
    for path in sorted(directory.iterdir()):
        spec = BATCHES[path.name.split(".")[0]]
        batch = DefaultRecordBatch(path.read_bytes())
        assert batch.validate_crc(), path
        time = [batch.max_timestamp] if batch.timestamp_type == batch.LOG_APPEND_TIME else None
        read = [(time[0] if time else r.timestamp, r.key, r.value, r.headers) for r in batch]
        put = [(time[0] if time else t, k, v, h) for t, k, v, h in unfold(spec["records"])]
        assert read == put, path
        print(f"{path.name}: valid, {len(read)} records")


def main():
    if sys.argv[1:2] == ["--read"]:
        return read_ours(pathlib.Path(sys.argv[2]))
    assert "kafka-python==" + importlib.metadata.version("kafka-python") == CLIENT
    lines = []
    for name, spec in BATCHES.items():
        with unittest.mock.patch("time.time", return_value=0), encoding(spec):
            raw = make(spec)
        (HERE / f"{name}.bin").write_bytes(raw)
        entry = {
            "name": name,
            "builder": spec.get("builder", False),
            "header": read_back(raw, spec),
            "offset_deltas": spec.get("offsets"),
            "records": [describe(r) for r in spec["records"]],
        }
        lines.append(json.dumps(entry, ensure_ascii=False))
    write_json("batches.json", lines, '{"made_by": "%s", "batches": [' % CLIENT, "]}")
    write_json(
        "murmur2.json",
        [json.dumps(v) for v in murmur2_vectors()],
        '{"made_by": "%s", "key_hash_partitions": [' % CLIENT,
        "]}",
    )


if __name__ == "__main__":
    main()
