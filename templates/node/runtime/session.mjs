// ONNX Runtime's session in Node: its native library, from the bundle's own verified files, as session.json says.

import { existsSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import os from "node:os";
import { isMainThread } from "node:worker_threads";

import { inputError, oneLine, runtimeError, sessionError } from "./errors.mjs";
import { checkThreads, MOST_THREADS, optionsOf, PROVIDER } from "./options.mjs";

const ORT = `runtime/ort/${process.arch}/`;
const BINDING = `${ORT}onnxruntime_binding.node`;
const ERRORS_ALONE = 3;
/** Weights of INT8 as U8 on x86-64 without VNNI, which adds products of U8 and S8 in 16 bits, where they overflow. */
const UNSIGNED_WEIGHTS = "session.x64quantprecision";

/** Where a bundle computes, at the beginning of a sentence. */
export const PLACE = "In this Node";
export const PACKAGE = "onnxruntime-node";

/** Tensors as the native library takes and makes them. */
class Tensor {
  constructor(type, data, dims) {
    Object.assign(this, { type, data, dims, location: "cpu" });
  }
}

let binding = null;

/** Threads of one operator: as asked for, else by the bundle's policy. */
export function threadCount(policy, asked) {
  checkThreads(asked);
  return Math.min(asked ?? (policy === "physical" ? physicalCores() : policy), MOST_THREADS);
}

/** Physical cores that this process may use. */
export function physicalCores() {
  const allowed = os.availableParallelism();
  const cores = new Set();
  let package_ = "";
  for (const line of fileLines("/proc/cpuinfo")) {
    const [name, value] = line.split(":").map((part) => part.trim());
    if (name === "physical id") package_ = value;
    else if (name === "core id") cores.add(`${package_}/${value}`);
  }
  return Math.max(1, Math.min(cores.size || allowed, allowed, quota()));
}

/** Processors that the cgroup of this process may use together. */
function quota() {
  const [most, period] = (fileLines("/sys/fs/cgroup/cpu.max")[0] ?? "max").split(" ").map(Number);
  return most > 0 && period > 0 ? Math.max(1, Math.floor(most / period)) : Infinity;
}

function fileLines(place) {
  try {
    return readFileSync(place, "utf8").split("\n");
  } catch {
    return []; // not on every system
  }
}

/** An open session of one bundle. */
export class Session {
  constructor(session, threads, version) {
    this._session = session;
    this._version = version;
    this.threads = threads;
    this.inputNames = session.inputMetadata.map(({ name }) => name);
    this.outputNames = session.outputMetadata.map(({ name }) => name);
  }

  /**
   * Start ONNX Runtime and open the model.
   *
   * @param files the bundle's Files.
   * @param manifest manifest.json.
   * @param asked number of threads, or undefined for the bundle's policy.
   */
  static async open(files, manifest, asked) {
    const config = await files.json("session.json");
    const options = optionsOf(config, [UNSIGNED_WEIGHTS]);
    const threads = threadCount(config.threads.intra_op, asked);
    const names = fileLines("/proc/cpuinfo").find((line) => line.startsWith("flags")) ?? "";
    // Where the processor has VNNI answers are the same, and products take half again as long.
    if (/\bavx(512)?_vnni\b/.test(names)) delete options.extra[UNSIGNED_WEIGHTS];
    Object.assign(options, { executionProviders: ["cpu"], intraOpNumThreads: threads, interOpNumThreads: config.threads.inter_op });
    start(files, manifest);
    const session = new binding.InferenceSession();
    try {
      session.loadModel(files.place(manifest.model.file), options);
    } catch (error) {
      throw sessionError(`onnxruntime refused the model: ${oneLine(error)}`, error);
    }
    return new Session(session, threads, manifest.runtime.version);
  }

  /** What computes, for logs and measurements. */
  info() {
    return { runtime_version: this._version, providers: [PROVIDER], node: process.versions.node };
  }

  /** Answers by name. */
  async run(inputs, names) {
    const feeds = {};
    for (const [name, { dtype, shape, data }] of Object.entries(inputs)) feeds[name] = new Tensor(dtype, data, shape);
    let results;
    try {
      results = this._session.run(feeds, Object.fromEntries(names.map((name) => [name, null])), {});
    } catch (error) {
      const message = `onnxruntime could not run the model: ${oneLine(error)}`;
      // A value that only the graph can judge, such as an index past the end of a table.
      throw /ERROR_CODE: 2|INVALID_ARGUMENT|out of (data )?bounds/i.test(message) ? inputError(message) : sessionError(message, error);
    }
    return Object.fromEntries(names.map((name) => [name, taken(results[name])]));
  }

  async close() {
    this._session.dispose();
  }
}

/** Load the native library once, for all bundles of this process. */
function start(files, manifest) {
  if (binding !== null) return;
  const carried = files.verify === "none" ? existsSync(files.place(BINDING)) : files.lists(BINDING);
  if (process.platform !== "linux" || !carried) {
    const known = manifest.platforms.join(" and ");
    throw runtimeError(`the bundle has no ONNX Runtime for ${process.platform} ${process.arch}. It is for ${known}: build it for this platform.`);
  }
  process.env.ORT_DISABLE_TELEMETRY = "1";
  try {
    const loaded = createRequire(import.meta.url)(files.place(BINDING));
    loaded.initOrtOnce(ERRORS_ALONE, Tensor, isMainThread);
    binding = loaded;
  } catch (error) {
    throw runtimeError(`ONNX Runtime cannot be started in this Node: ${oneLine(error)}`, error);
  }
}

function taken({ type, dims, data }) {
  const bits = type === "float16" ? new Uint16Array(data.buffer, data.byteOffset, data.length) : data;
  return { dtype: type, shape: Array.from(dims), data: bits };
}
