// Sends lines of standard input as records, each stored once, also when the connection breaks on the way.

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { ProduceStreamAnswer, ProduceStreamRequestSchema, RecordSchema } from "../gen/logmill/v1/produce_pb.js";
import { type Arguments, main, print } from "./command_line.js";
import {
  CALL_TIMEOUT_MS,
  connect,
  Failure,
  type Node,
  NodeError,
  Outbox,
  partitionCount,
  Patience,
} from "./logmill.js";
import { murmur2 } from "./murmur2.js";

const HELP = `usage: node dist/produce.js TOPIC [options] < LINES

Stores each line of standard input as a record, waits until all are on disk, and prints how many there are.

  --key KEY      the key of every record (default: none)
`;

/** A node knows 64 batches again when they are sent again, in each partition. */
const MAX_UNANSWERED = 32;
/** Few enough that some thousand lines are spread over the partitions. */
const MAX_BATCH_RECORDS = 500;
/** After this one comes 0. */
const LAST_SEQUENCE = 2 ** 31 - 1;

type Request = MessageInitShape<typeof ProduceStreamRequestSchema>;

async function run(args: Arguments, stop: AbortSignal): Promise<void> {
  const [topic = ""] = args.names;
  const key = args.key === undefined ? undefined : Buffer.from(args.key);
  const node = connect(args.server);
  const partitions = await partitionCount(node, topic);
  const id = await node.produce.initProducerId({}, { timeoutMs: CALL_TIMEOUT_MS });
  const producer = new Producer(node, topic, id.producerId, id.producerEpoch);

  // Without a key, a batch here, a batch there; with one, where Kafka's clients put it.
  let partition = key === undefined ? Math.floor(Math.random() * partitions) : murmur2(key) % partitions;
  const feed = async () => {
    for await (const lines of linesOf(process.stdin, stop)) {
      const records = lines.map((value) => ({ key, value }));
      await producer.send(partition, records);
      if (key === undefined) partition = (partition + 1) % partitions;
    }
    producer.end();
  };
  try {
    await Promise.all([feed(), producer.deliver()]);
  } catch (thrown) {
    const error = NodeError.from(thrown);
    if (!(error instanceof Failure)) throw error;
    throw new Failure(`${error.message} (${producer.produced} records were stored before)`);
  }
  await print(`${JSON.stringify({ produced: producer.produced })}\n`);
}

/** The lines as they come, as bytes, a batch of those of a piece of input: somebody may be typing them. */
async function* linesOf(input: NodeJS.ReadStream, stop: AbortSignal): AsyncGenerator<Uint8Array[], void, undefined> {
  stop.addEventListener("abort", () => input.destroy());
  let rest: Buffer = Buffer.alloc(0);
  try {
    for await (const piece of input) {
      const lines: Uint8Array[] = [];
      let text = Buffer.concat([rest, piece]);
      for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n")) {
        lines.push(text.subarray(0, end));
        text = text.subarray(end + 1);
      }
      rest = text;
      while (lines.length > 0) yield lines.splice(0, MAX_BATCH_RECORDS);
    }
  } catch (error) {
    if (!stop.aborted) throw error;
    return;
  }
  if (rest.length > 0) yield [rest];
}

/** Numbers its records in each partition, so that the node knows those that it has already. */
class Producer {
  /** In the order in which they were sent first. */
  readonly #unanswered = new Map<bigint, { request: Request; records: number }>();
  readonly #sequences = new Map<number, number>();
  readonly #patience = new Patience();
  #outbox = new Outbox<Request>();
  #lastCorrelation = 0n;
  #isEnding = false;
  #onRoom = () => {};
  produced = 0;

  constructor(
    readonly node: Node,
    readonly topic: string,
    readonly id: bigint,
    readonly epoch: number,
  ) {}

  /** Waits for room, not for the answer. */
  async send(partition: number, records: MessageInitShape<typeof RecordSchema>[]): Promise<void> {
    while (this.#unanswered.size >= MAX_UNANSWERED) await new Promise<void>((resolve) => (this.#onRoom = resolve));
    const baseSequence = this.#sequences.get(partition) ?? 0;
    this.#sequences.set(partition, (baseSequence + records.length) % (LAST_SEQUENCE + 1));
    const producer = { id: this.id, epoch: this.epoch, baseSequence };
    const payload = { case: "records", value: { records } } as const;
    const correlationId = ++this.#lastCorrelation;
    const request = { correlationId, request: { topic: this.topic, partition, payload, producer } };
    this.#unanswered.set(correlationId, { request, records: records.length });
    this.#outbox.push(request);
  }

  /** Nothing more is sent. */
  end(): void {
    this.#isEnding = true;
    this.#outbox.close();
  }

  /** Runs until all that was sent is answered. After a failure, what is not answered goes out again on a new stream. */
  async deliver(): Promise<void> {
    for (;;) {
      const stream = new AbortController();
      try {
        for await (const { reply } of this.node.produce.produceStream(this.#outbox, { signal: stream.signal })) {
          if (reply.case === "answer") this.#settle(reply.value);
        }
        if (this.#isEnding && this.#unanswered.size === 0) return;
        throw new NodeError("", "the node ended the stream");
      } catch (error) {
        await this.#patience.bear(error);
      } finally {
        stream.abort();
      }
      this.#outbox = new Outbox<Request>();
      for (const { request } of this.#unanswered.values()) this.#outbox.push(request);
      if (this.#isEnding) this.#outbox.close();
    }
  }

  #settle({ correlationId, results }: ProduceStreamAnswer): void {
    for (const { outcome } of results) {
      if (outcome.case === "error") throw NodeError.inReply(outcome.value);
    }
    this.produced += this.#unanswered.get(correlationId)?.records ?? 0;
    this.#unanswered.delete(correlationId);
    this.#patience.reset();
    this.#onRoom();
  }
}

await main(HELP, 1, { key: { type: "string" } }, run);
