// Copies a topic to another in upper case, each record once, whatever breaks in between.

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { FetchedRecord } from "../gen/logmill/v1/fetch_pb.js";
import type { CommitStepRequestSchema } from "../gen/logmill/v1/transactions_pb.js";
import { type Arguments, main, print, UsageError } from "./command_line.js";
import { CALL_TIMEOUT_MS, connect, type Node, partitionCount, Patience } from "./logmill.js";
import { type Batch, Member, sizeBytes } from "./member.js";

const HELP = `usage: node dist/exactly_once.js FROM TO --group GROUP [options]

Writes the values of topic FROM to topic TO in upper case, without the empty ones. What was read and what came of it
are committed together, in steps.

  --group GROUP  the group that shares topic FROM
  -n, --count N  end after so many records of FROM (default: go on until interrupted)
`;

/** A good size for one message; the node takes 4 MiB and more, and 100,000 records. */
const MESSAGE_BYTES = 1_000_000;
/** What a record takes in a message besides, about: it bounds how many small ones are in one. */
const OVERHEAD_BYTES = 32;

type NewRecord = Pick<FetchedRecord, "key" | "value" | "timestampMs" | "headers">;
type StepMessage = MessageInitShape<typeof CommitStepRequestSchema>;

async function run(args: Arguments, stop: AbortSignal): Promise<void> {
  const { group, limit } = args;
  const [from = "", to = ""] = args.names;
  if (from === to) throw new UsageError("FROM and TO have to be different topics: what is written would be read again");
  const node = connect(args.server);
  await partitionCount(node, from);
  await partitionCount(node, to);
  const done = { steps: 0, read: 0, written: 0 };
  const handle = async (batch: Batch) => {
    const records = batch.records.flatMap(inUpperCase);
    await commitStep(node, group, batch, to, records);
    done.steps += 1;
    done.read += batch.records.length;
    done.written += records.length;
  };
  await new Member(node, group, from, handle, limit).run(stop);
  await print(`${JSON.stringify(done)}\n`);
}

/** What comes of a record: one for the other topic, or none. */
function inUpperCase({ key, value, timestampMs, headers }: FetchedRecord): NewRecord[] {
  if (value === undefined || value.length === 0) return [];
  const upper = Buffer.from(Buffer.from(value).toString().toUpperCase());
  return [{ value: upper, key, timestampMs, headers }];
}

/** Commits records for a topic together with how far the unit has read, once, however often it has to be sent. */
async function commitStep(node: Node, group: string, { unit, place }: Batch, topic: string, records: NewRecord[]) {
  const sequence = unit.lastStep + 1n;
  const totalBytes = BigInt(records.reduce((sum, record) => sum + sizeBytes(record), 0));
  const topics = records.length > 0 ? [topic] : [];
  const header = { group, unit: unit.id, sequence, offsets: [place], topics, totalBytes };
  const messages: StepMessage[] = [{ request: { case: "header", value: header } }];
  for (const part of inParts(records)) {
    const payload = { case: "records", value: { records: part } } as const;
    messages.push({ request: { case: "records", value: { topic, payload } } });
  }
  const patience = new Patience();
  for (;;) {
    try {
      await node.transactions.commitStep(iterate(messages), { timeoutMs: CALL_TIMEOUT_MS });
      break;
    } catch (error) {
      // It may be committed. By the same sequence and offsets the node knows it again.
      await patience.bear(error);
    }
  }
  unit.lastStep = sequence;
  unit.place = place;
}

async function* iterate<T>(items: T[]): AsyncGenerator<T, void, undefined> {
  yield* items;
}

function* inParts(records: NewRecord[]): Generator<NewRecord[]> {
  let part: NewRecord[] = [];
  let bytes = 0;
  for (const record of records) {
    const size = sizeBytes(record) + OVERHEAD_BYTES;
    if (part.length > 0 && bytes + size > MESSAGE_BYTES) {
      yield part;
      [part, bytes] = [[], 0];
    }
    part.push(record);
    bytes += size;
  }
  if (part.length > 0) yield part;
}

await main(HELP, 2, { group: { type: "string" }, count: { type: "string", short: "n" } }, run);
