// Prints a topic as a member of a group.

import { type Arguments, main, print } from "./command_line.js";
import { connect, partitionCount } from "./logmill.js";
import { type Batch, Member } from "./member.js";

const HELP = `usage: node dist/consume.js TOPIC --group GROUP [options]

Prints the values of this member's share of the topic, one on a line, and commits what it has printed.

  --group GROUP  the group that shares the topic
  -n, --count N  end after so many records (default: go on until interrupted)
`;

async function run(args: Arguments, stop: AbortSignal): Promise<void> {
  const [topic = ""] = args.names;
  const node = connect(args.server);
  await partitionCount(node, topic);
  await new Member(node, args.group, topic, printed, args.limit).run(stop);
}

async function printed(batch: Batch): Promise<void> {
  const lines = batch.records.flatMap(({ value }) => [value ?? new Uint8Array(), Buffer.from("\n")]);
  await print(Buffer.concat(lines));
  await batch.commit();
}

await main(HELP, 1, { group: { type: "string" }, count: { type: "string", short: "n" } }, run);
