// Answers requests of ortc in Node: JSON lines on stdin and stdout, about the bundle that the command line names.

import { readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

import { reply, settle } from "./operations.mjs";

const [, , bundle] = process.argv;

settle({
  loader: pathToFileURL(path.join(bundle, "runtime", "loader.mjs")).href,
  bundle,
  read: async (name) => new Uint8Array(await readFile(name)),
  write: writeFile,
  clock() {
    const { user, system } = process.cpuUsage();
    return { cpu_seconds: (user + system) / 1e6 };
  },
});

for await (const line of createInterface({ input: process.stdin })) {
  if (line.trim()) process.stdout.write(`${JSON.stringify(await reply(JSON.parse(line)))}\n`);
}
