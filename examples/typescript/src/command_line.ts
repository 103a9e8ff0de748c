// What the programs have in common as commands: arguments, signals, output, and how they end.

import { basename } from "node:path";
import { parseArgs } from "node:util";
import { Failure, NodeError } from "./logmill.js";

const SERVER = "http://127.0.0.1:7070";

export interface Arguments {
  server: string;
  /** What was given without a name, as many as there have to be. */
  names: string[];
  key: string | undefined;
  /** Never empty where there is such an option. */
  group: string;
  /** What `-n` says; without it there is none. */
  limit: number;
}

type Options = Record<string, { type: "string"; short?: string }>;

/** Something that can never work as it was typed. */
export class UsageError extends Failure {}

/** Ends the program itself where only help is asked for. */
function parse(help: string, nameCount: number, options: Options): Arguments {
  const { positionals: names, values } = read(options);
  if (values["help"]) {
    console.log(`${help}  --server URL   the node's address (default: ${SERVER})\n  -h, --help     this text`);
    process.exit();
  }
  const { server = SERVER, key, group = "", count } = values as Record<string, string | undefined>;
  if (names.length !== nameCount) throw new UsageError(`${names.length} operands were given, not ${nameCount}`);
  const url = `http://${server.replace("http://", "")}`;
  if (!/^http:\/\/[^/]+:\d+\/?$/.test(url) || !URL.canParse(url)) {
    throw new UsageError(`--server takes a URL such as ${SERVER}, not "${server}"`);
  }
  if ("group" in options && group === "") throw new UsageError("--group is needed: the name that members share");
  if (count !== undefined && !/^[1-9][0-9]*$/.test(count)) {
    throw new UsageError(`-n takes a whole number above 0, not "${count}"`);
  }
  return { server: url, names, key, group, limit: count === undefined ? Infinity : Number(count) };
}

function read(options: Options) {
  const all = { ...options, server: { type: "string" }, help: { type: "boolean", short: "h" } } as const;
  try {
    return parseArgs({ options: all, allowPositionals: true });
  } catch (error) {
    const [sentence = ""] = String(error instanceof Error ? error.message : error).split(/\. |\n/);
    // That is what it says of "-n -1".
    const dash = "takes a value that begins with '-' only as --option=value";
    throw new UsageError(sentence.replace("argument is ambiguous.", dash));
  }
}

/** Runs a program until it is done, or a signal stops it. The first line of the help says how it is called. */
export async function main(
  help: string,
  nameCount: number,
  options: Options,
  run: (args: Arguments, stop: AbortSignal) => Promise<void>,
): Promise<never> {
  const stop = new AbortController();
  // Once: a second signal ends the program as it is.
  for (const signal of ["SIGINT", "SIGTERM"]) process.once(signal, () => stop.abort());
  // Who prints is told.
  process.stdout.on("error", () => {});
  try {
    await run(parse(help, nameCount, options), stop.signal);
  } catch (thrown) {
    const error = NodeError.from(thrown);
    // Anything else is a fault of the program, and its stack is wanted.
    if (!(error instanceof Failure)) throw error;
    process.stderr.write(`${basename(process.argv[1] ?? "", ".js")}: ${error.message}\n`);
    if (!(error instanceof UsageError)) process.exit(1);
    process.stderr.write(`${help.split("\n", 1)}\n`);
    process.exit(2);
  }
  // Standard input may be open still, and would keep the program.
  process.exit(0);
}

export function print(text: string | Uint8Array): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(text, (error) => {
      if (error) reject(new Failure(`standard output takes nothing more: ${error.message}`));
      else resolve();
    });
  });
}
