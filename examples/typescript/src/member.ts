// A member of a group: joins, joins again when the connection broke, hands out records of what it is assigned, and
// gives up what it is told to.

import type { MessageInitShape } from "@bufbuild/protobuf";
import type { FetchedRecord, PartitionData } from "../gen/logmill/v1/fetch_pb.js";
import type {
  ConsumeRequestSchema,
  ConsumeResponse,
  OffsetToCommitSchema,
  UnitAssigned,
  UnitData,
  UnitEpoch,
} from "../gen/logmill/v1/groups_pb.js";
import { Failure, type Node, NodeError, Outbox, Patience } from "./logmill.js";

/** Bytes of records that the node may send ahead. */
const CREDIT_BYTES = 1n << 20n;
/** So long the units of a member that was killed wait before others have them. */
const SESSION_TIMEOUT_MS = 10_000;
const GOODBYE_MS = 1_000;

type Request = MessageInitShape<typeof ConsumeRequestSchema>;
type Reply = ConsumeResponse["reply"];
type Place = MessageInitShape<typeof OffsetToCommitSchema> & { offset: bigint };

/** A unit that the member has. Members that join with a topic have one partition in each. */
export interface Unit {
  readonly id: UnitEpoch;
  /** Behind what is handled. */
  place: Place;
  /** The sequence of the last step that was committed; -1 before the first. */
  lastStep: bigint;
}

/** Records of a unit, and where the group goes on behind them. */
export interface Batch {
  readonly unit: Unit;
  readonly records: FetchedRecord[];
  readonly place: Place;
  /** The records are handled, and come to no other member from now on. */
  commit(): Promise<void>;
}

export type Handler = (batch: Batch) => Promise<void>;

export class Member {
  readonly #units = new Map<string, Unit>();
  readonly #patience = new Patience();
  #memberId: string | undefined;
  #left: number;

  constructor(
    readonly node: Node,
    readonly group: string,
    readonly topic: string,
    readonly handle: Handler,
    limit: number,
  ) {
    this.#left = limit;
  }

  /** Handles records, one batch at a time, until it is stopped or has handled `limit`; then leaves the group. */
  async run(stop: AbortSignal): Promise<void> {
    while (!stop.aborted && this.#left > 0) {
      const stream = new MemberStream(this.node);
      try {
        stream.say({
          case: "join",
          value: {
            group: this.group,
            memberId: this.#memberId,
            topics: [this.topic],
            sessionTimeoutMs: SESSION_TIMEOUT_MS,
            creditBytes: CREDIT_BYTES,
          },
        });
        while (!stop.aborted && this.#left > 0) {
          const reply = await stream.next(stop);
          if (reply) await this.#hear(stream, reply);
        }
        await stream.leave();
      } catch (error) {
        await this.#patience.bear(error).catch(async (reason) => {
          // So that the others have its units at once.
          await stream.leave();
          throw reason;
        });
      } finally {
        stream.close();
      }
    }
  }

  async #hear(stream: MemberStream, reply: Reply): Promise<void> {
    switch (reply.case) {
      case "joined":
        this.#memberId = reply.value.memberId;
        stream.every(reply.value.sessionTimeoutMs / 4, () => {
          stream.say({ case: "heartbeat", value: {} });
          // A stream that has lasted so long was a success.
          this.#patience.reset();
        });
        break;
      case "assigned":
        await this.#assign(stream, reply.value);
        break;
      case "data":
        await this.#take(stream, reply.value);
        break;
      case "revoke":
        // Whatever came of it before is handled and committed by now.
        this.#units.delete(reply.value.unit);
        stream.say({ case: "revoked", value: { unit: reply.value } });
        break;
      case "lost":
        if (reply.value.unit) this.#units.delete(reply.value.unit.unit);
        break;
    }
  }

  async #assign(stream: MemberStream, { unit: id, partitions, lastStep }: UnitAssigned): Promise<void> {
    const [partition] = partitions;
    if (!id || !partition)
      throw new Failure("the node assigned a unit of nothing: are node and client of one version?");
    const committed = partition.committedOffset ?? 0n;
    const known = this.#units.get(id.unit);
    if (known?.id.epoch !== id.epoch) {
      const place = { topic: partition.topic, partition: partition.partition, offset: committed };
      this.#units.set(id.unit, { id, place, lastStep: lastStep ?? -1n });
    } else if (known.place.offset > committed) {
      // It comes again after a break, and what the member has of it is newer: the answer to the last commit was lost.
      await this.#unlessStale(known, () => stream.commit(known));
    }
  }

  async #take(stream: MemberStream, { unit: id, data }: UnitData): Promise<void> {
    if (!id || !data) throw new Failure("the node sent records of no unit: are node and client of one version?");
    const records = data.chunks.flatMap(({ data }) => (data.case === "records" ? data.value.records : []));
    const unit = this.#units.get(id.unit);
    if (unit?.id.epoch === id.epoch) {
      if (data.error) throw NodeError.inReply(data.error);
      // After a break the node goes on at what is committed, and some of that was handled before.
      const fresh = records.filter(({ offset }) => offset >= unit.place.offset);
      const batch = { unit, records: fresh.slice(0, this.#left), place: placeBehind(data, fresh[this.#left]) };
      if (batch.place.offset > unit.place.offset) {
        const commit = () => {
          // First: whatever becomes of the commit, these are not handled again.
          unit.place = batch.place;
          return stream.commit(unit);
        };
        await this.#unlessStale(unit, async () => {
          await this.handle({ ...batch, commit });
          this.#left -= batch.records.length;
        });
      }
    }
    const bytes = records.reduce((sum, record) => sum + sizeBytes(record), 0);
    if (bytes > 0) stream.say({ case: "credit", value: { bytes: BigInt(bytes) } });
  }

  /** Drops the unit if it is another member's by now, which does again what was not committed. */
  async #unlessStale(unit: Unit, action: () => Promise<void>): Promise<void> {
    try {
      await action();
      this.#patience.reset();
    } catch (thrown) {
      const error = NodeError.from(thrown);
      if (!(error instanceof NodeError) || error.reason !== "STALE_ASSIGNMENT") throw error;
      this.#units.delete(unit.id.unit);
    }
  }
}

/** Before the first record that is left, without the epoch then: that is of the end of what came. */
function placeBehind({ topic, partition, nextOffset, lastEpoch }: PartitionData, left?: FetchedRecord): Place {
  return left ? { topic, partition, offset: left.offset } : { topic, partition, offset: nextOffset, lastEpoch };
}

/** As the node counts it against the credit, and in the total of a step. */
export function sizeBytes({ key, value, headers }: Pick<FetchedRecord, "key" | "value" | "headers">): number {
  const ofHeaders = headers.map((header) => Buffer.byteLength(header.key) + (header.value?.length ?? 0));
  return ofHeaders.reduce((sum, bytes) => sum + bytes, (key?.length ?? 0) + (value?.length ?? 0));
}

/** One stream of a member. What is left of it counts for nothing when the member joins again on another. */
class MemberStream {
  readonly #outbox = new Outbox<Request>();
  readonly #ending = new AbortController();
  readonly #replies: AsyncIterator<ConsumeResponse>;
  /** Replies that came while the answer to a commit was waited for. */
  readonly #early: Reply[] = [];
  #reading: Promise<IteratorResult<ConsumeResponse>> | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(node: Node) {
    const replies = node.groups.consume(this.#outbox, { signal: this.#ending.signal });
    this.#replies = replies[Symbol.asyncIterator]();
  }

  say(request: NonNullable<Request["request"]>): void {
    this.#outbox.push({ request });
  }

  every(periodMs: number, action: () => void): void {
    this.#timer = setInterval(action, periodMs);
  }

  /** The next reply; none if it is told to stop before one comes. */
  next(stop: AbortSignal): Promise<Reply | undefined> {
    return new Promise((resolve, reject) => {
      const onStop = () => resolve(undefined);
      stop.addEventListener("abort", onStop, { once: true });
      const reply = this.#early.length > 0 ? Promise.resolve(this.#early.shift()) : this.#read();
      reply.then(resolve, reject).finally(() => stop.removeEventListener("abort", onStop));
    });
  }

  /** Commits how far a unit is handled, and waits until that is on disk. */
  async commit({ id, place }: Unit): Promise<void> {
    this.say({ case: "commit", value: { unit: id, offsets: [place] } });
    let reply = await this.#read();
    // One commit at a time, so this is the answer, and needs no correlation id.
    for (; reply.case !== "committed"; reply = await this.#read()) this.#early.push(reply);
    if (reply.value.error) throw NodeError.inReply(reply.value.error);
  }

  /** Tells the node, and gives it a moment to take note. */
  async leave(): Promise<void> {
    this.say({ case: "leave", value: {} });
    this.#outbox.close();
    const timer = setTimeout(() => this.#ending.abort(), GOODBYE_MS);
    // It ends with an error, as reading always does.
    while (await this.#read().catch(() => undefined));
    clearTimeout(timer);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#outbox.close();
    this.#ending.abort();
  }

  async #read(): Promise<Reply> {
    // One that was not waited for to its end is still under way.
    this.#reading ??= this.#replies.next();
    const { done, value } = await this.#reading;
    this.#reading = undefined;
    if (done) throw new NodeError("", "the node ended the stream");
    return value.reply;
  }
}
