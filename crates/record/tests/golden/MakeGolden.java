// Makes the batches in java/ beside this file, with Kafka's own encoder, and reads what this crate wrote.
//
// The encoder is kafka-clients 4.3.1 (with the codecs that it depends on, and any binding of slf4j):
//
//     java -cp 'lib/*' crates/record/tests/golden/MakeGolden.java
//     java -cp 'lib/*' crates/record/tests/golden/MakeGolden.java --read DIR
//
// CODEC.bin: the same 3,000 records with each codec. compacted_CODEC.bin: what Kafka's compaction leaves of it if
// every third record stays, with a delete horizon, since tombstones are among them. emptied.bin: what it leaves if
// none stays. commit.bin and abort.bin: the ends of a transaction.
//
// --read takes a directory that the ignored test of golden.rs filled with NAME.CODEC.bin and NAME.none.bin: each must
// be valid, and hold the same records as the uncompressed one of its name.

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.record.internal.*;
import org.apache.kafka.common.record.internal.MemoryRecords.RecordFilter;
import org.apache.kafka.common.record.internal.Record;
import org.apache.kafka.common.utils.BufferSupplier;

public class MakeGolden {
    static final Path HERE = Path.of("crates/record/tests/golden/java");
    static final long T0 = 1_700_000_000_000L;
    static final int COUNT = 3_000;

    public static void main(String[] args) throws IOException {
        if (args.length == 2 && args[0].equals("--read")) {
            read(Path.of(args[1]));
            return;
        }
        Files.createDirectories(HERE);
        for (String codec : List.of("none", "gzip", "snappy", "lz4", "zstd")) {
            MemoryRecords records = records(Compression.of(codec).build());
            write(codec, records.buffer());
            write("compacted_" + codec, filter(records, offset -> offset % 3 == 0));
            if (codec.equals("none")) {
                write("emptied", filter(records, offset -> false));
            }
        }
        for (ControlRecordType type : List.of(ControlRecordType.COMMIT, ControlRecordType.ABORT)) {
            EndTransactionMarker marker = new EndTransactionMarker(type, 12);
            write(type.name().toLowerCase(),
                MemoryRecords.withEndTransactionMarker(7_000, T0, 5, 4711L, (short) 3, marker).buffer());
        }
    }

    static MemoryRecords records(Compression compression) {
        MemoryRecordsBuilder builder = MemoryRecords.builder(ByteBuffer.allocate(1 << 20), RecordBatch.CURRENT_MAGIC_VALUE,
            compression, TimestampType.CREATE_TIME, 7_000L, RecordBatch.NO_TIMESTAMP, 4711L, (short) 3, 77, true, 5);
        for (int i = 0; i < COUNT; i++) {
            byte[] key = i % 5 == 4 ? null : ("key-" + i % 100).getBytes();
            byte[] value = i % 7 == 6 ? null : ("value " + i + ", and so on and so on").getBytes();
            Header[] headers = i % 11 == 10
                ? new Header[] {new RecordHeader("a", "1".getBytes()), new RecordHeader("a", (byte[]) null)}
                : new Header[0];
            builder.append(new SimpleRecord(T0 + i * 10L, key, value, headers));
        }
        return builder.build();
    }

    static ByteBuffer filter(MemoryRecords records, java.util.function.LongPredicate keep) {
        ByteBuffer out = ByteBuffer.allocate(1 << 20);
        RecordFilter filter = new RecordFilter(T0 + 1_000_000, 86_400_000) {
            @Override
            protected BatchRetentionResult checkBatchRetention(RecordBatch batch) {
                return new BatchRetentionResult(BatchRetention.RETAIN_EMPTY, false);
            }

            @Override
            protected boolean shouldRetainRecord(RecordBatch batch, Record record) {
                return keep.test(record.offset());
            }
        };
        return records.filterTo(filter, out, BufferSupplier.NO_CACHING).outputBuffer().flip();
    }

    static void write(String name, ByteBuffer buffer) throws IOException {
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        Files.write(HERE.resolve(name + ".bin"), bytes);
    }

    static void read(Path dir) throws IOException {
        List<Path> files = new ArrayList<>();
        try (var listed = Files.list(dir)) {
            listed.sorted().forEach(files::add);
        }
        for (Path file : files) {
            String name = file.getFileName().toString();
            String plain = name.substring(0, name.indexOf('.')) + ".none.bin";
            List<String> read = readBatch(file);
            if (!read.equals(readBatch(dir.resolve(plain)))) {
                throw new AssertionError(name + " holds other records than " + plain);
            }
            System.out.println(name + ": valid, " + read.size() + " records");
        }
    }

    static List<String> readBatch(Path file) throws IOException {
        List<String> read = new ArrayList<>();
        for (RecordBatch batch : MemoryRecords.readableRecords(ByteBuffer.wrap(Files.readAllBytes(file))).batches()) {
            batch.ensureValid();
            for (Record record : batch) {
                record.ensureValid();
                read.add(record.offset() + " " + record.timestamp() + " " + text(record.key()) + " " + text(record.value())
                    + " " + Arrays.toString(record.headers()));
            }
        }
        return read;
    }

    static String text(ByteBuffer buffer) {
        if (buffer == null) {
            return "null";
        }
        byte[] bytes = new byte[buffer.remaining()];
        buffer.duplicate().get(bytes);
        return Arrays.toString(bytes);
    }
}
