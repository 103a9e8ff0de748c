// A connection to a node, the errors that it answers with, and how long to go on in spite of them.

import { setTimeout as sleep } from "node:timers/promises";
import { ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";
import { ErrorInfoSchema } from "../gen/google/rpc/error_info_pb.js";
import type { Error as ErrorInReply } from "../gen/logmill/v1/common_pb.js";
import { GroupService } from "../gen/logmill/v1/groups_pb.js";
import { ProduceService } from "../gen/logmill/v1/produce_pb.js";
import { TopicService } from "../gen/logmill/v1/topics_pb.js";
import { TransactionService } from "../gen/logmill/v1/transactions_pb.js";

/** For each call that is no stream. */
export const CALL_TIMEOUT_MS = 10_000;
const GIVE_UP_AFTER_MS = 30_000;
const LONGEST_PAUSE_MS = 2_000;

export type Node = ReturnType<typeof connect>;

/** All calls share one HTTP/2 connection, which is opened with the first and opened again when it broke. */
export function connect(server: string) {
  const transport = createGrpcTransport({
    baseUrl: server,
    // A stream of a member may be silent for hours: this finds out that nobody is there any more.
    pingIntervalMs: 10_000,
  });
  return {
    topics: createClient(TopicService, transport),
    produce: createClient(ProduceService, transport),
    groups: createClient(GroupService, transport),
    transactions: createClient(TransactionService, transport),
  };
}

/** The number of partitions of a topic that there has to be: groups would wait for one that is made later. */
export async function partitionCount(node: Node, topic: string): Promise<number> {
  const { partitions } = await node.topics.describeTopic({ name: topic }, { timeoutMs: CALL_TIMEOUT_MS });
  return partitions.length;
}

/** What went wrong, in a sentence for people. */
export class Failure extends Error {}

/** What a node answered, whether it failed a call or stands in a reply. */
export class NodeError extends Failure {
  constructor(
    /** One of docs/errors.md; empty if it does not come from the node, but from the connection to it. */
    readonly reason: string,
    message: string,
    readonly metadata: Record<string, string> = {},
  ) {
    super(message);
  }

  /** Anything that was thrown; what is no answer of a node stays what it is. */
  static from(error: unknown): unknown {
    if (!(error instanceof ConnectError)) return error;
    const info = error.findDetails(ErrorInfoSchema).find(({ domain }) => domain === "logmill");
    if (info) return new NodeError(info.reason, error.rawMessage, info.metadata);
    return new NodeError(
      "",
      `no node answers (${error.rawMessage}): start one with 'logmill serve', or correct the address`,
    );
  }

  static inReply({ reason, message, metadata }: ErrorInReply): NodeError {
    return new NodeError(reason, message, metadata);
  }
}

/**
 * After these the same may succeed, for calls that have one effect however often they are made. The same list as in
 * docs/errors.md, "May it be sent again?"
 */
const TRANSIENT = new Set([
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
]);

/** What is beyond these limits stays so. */
const NEVER_FITS = new Set([
  "max_batch_bytes",
  "max_headers_per_request",
  "max_records_per_request",
  "max_commit_partitions",
]);

function isTransient(error: NodeError): boolean {
  if (error.reason === "LIMIT_EXCEEDED" && NEVER_FITS.has(error.metadata["limit"] ?? "")) return false;
  // A node gives a reason with every error of its own, so without one it is the connection that failed.
  return error.reason === "" || TRANSIENT.has(error.reason);
}

/** Bears errors that may pass, for 30 s in a row, with longer and longer pauses. */
export class Patience {
  #since: number | undefined;
  #pauseMs = 50;

  /** Something has worked again. */
  reset(): void {
    this.#since = undefined;
    this.#pauseMs = 50;
  }

  /** Waits before the next attempt; or throws the error, if another attempt is of no use. */
  async bear(thrown: unknown): Promise<void> {
    const error = NodeError.from(thrown);
    if (!(error instanceof NodeError) || !isTransient(error)) throw error;
    this.#since ??= Date.now();
    if (Date.now() - this.#since > GIVE_UP_AFTER_MS) {
      throw new Failure(`${error.message} (tried for ${GIVE_UP_AFTER_MS / 1000} s)`);
    }
    // Partly by chance, so that clients that lost their node together do not come back all at once.
    await sleep(this.#pauseMs * (0.5 + Math.random() / 2));
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
  }
}

/** What is to be said on a stream: filled from anywhere, read by the connection. */
export class Outbox<T> implements AsyncIterable<T> {
  #items: T[] = [];
  #isClosed = false;
  #wake = () => {};

  push(item: T): void {
    this.#items.push(item);
    this.#wake();
  }

  /** Ends the stream behind what was pushed. */
  close(): void {
    this.#isClosed = true;
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<T, void, undefined> {
    for (;;) {
      yield* this.#items.splice(0);
      if (this.#items.length > 0) continue;
      if (this.#isClosed) return;
      await new Promise<void>((wake) => (this.#wake = wake));
    }
  }
}
