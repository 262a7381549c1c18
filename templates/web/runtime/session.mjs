// ONNX Runtime's session: its WebAssembly build, from the bundle's own verified files, as session.json says.

import { inputError, oneLine, runtimeError, sessionError } from "./errors.mjs";
import { isFloat } from "./arrays.mjs";
import { checkThreads, MOST_THREADS, optionsOf, PROVIDER } from "./options.mjs";

const ORT = "runtime/ort/";
const SCRIPT = `${ORT}ort.wasm.min.mjs`;
const GLUE = `${ORT}ort-wasm-simd-threaded.mjs`;
const BINARY = `${ORT}ort-wasm-simd-threaded.wasm`;

/** Threads of one operator: as asked for, else by the bundle's policy; one where the page is not isolated. */
export function threadCount(policy, asked) {
  checkThreads(asked);
  if (!globalThis.crossOriginIsolated) return 1;
  // Browsers tell logical processors alone, of which two often share one core.
  const logical = navigator.hardwareConcurrency || 1;
  const physical = logical > 2 ? Math.ceil(logical / 2) : logical;
  return Math.min(asked ?? (policy === "physical" ? physical : policy), MOST_THREADS);
}

/** Where a bundle computes, at the beginning of a sentence. */
export const PLACE = "In this browser";
export const PACKAGE = "onnxruntime-web";

/** An open session of one bundle. */
export class Session {
  constructor(ort, session, threads) {
    this._ort = ort;
    this._session = session;
    this.threads = threads;
    this.inputNames = session.inputNames;
    this.outputNames = session.outputNames;
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
    const options = { executionProviders: ["wasm"], ...optionsOf(config) };
    const threads = threadCount(config.threads.intra_op, asked);
    const ort = await started(files, threads);
    const model = await files.read(manifest.model.file);
    // Weights of large models lie beside the graph. What a build tries has no list of files yet.
    const beside = model.length < manifest.model.bytes || !manifest.files?.length ? weightsOf(model) : [];
    const external = beside.map((name) => [...manifest.model.file.split("/").slice(0, -1), name].join("/"));
    if (external.length) {
      options.externalData = await Promise.all(external.map(async (path, place) => ({ path: beside[place], data: await files.read(path) })));
    }
    try {
      return new Session(ort, await ort.InferenceSession.create(model, options), threads);
    } catch (error) {
      throw sessionError(`onnxruntime refused the model: ${oneLine(error)}`, error);
    } finally {
      for (const path of [manifest.model.file, ...external]) files.drop(path);
    }
  }

  /** What computes, for logs and measurements. */
  info() {
    const version = this._ort.env.versions.web ?? this._ort.env.versions.common;
    return { runtime_version: version, providers: [PROVIDER], isolated: Boolean(globalThis.crossOriginIsolated) };
  }

  /** Answers by name. */
  async run(inputs, names) {
    const feeds = {};
    let results;
    try {
      for (const [name, { dtype, shape, data }] of Object.entries(inputs)) feeds[name] = new this._ort.Tensor(dtype, given(dtype, data), shape);
      results = await this._session.run(feeds, names);
    } catch (error) {
      const message = `onnxruntime could not run the model: ${oneLine(error)}`;
      // A value that only the graph can judge, such as an index past the end of a table.
      throw /ERROR_CODE: 2|INVALID_ARGUMENT|out of (data )?bounds/i.test(message) ? inputError(message) : sessionError(message, error);
    }
    return Object.fromEntries(names.map((name) => [name, taken(results[name])]));
  }

  async close() {
    await this._session.release();
  }
}

/** Names of the files of weights that a graph refers to: `{ key: "location", value: name }` in the bytes of protobuf. */
function weightsOf(graph) {
  const start = [...new TextEncoder().encode("\n\x08location\x12")];
  const found = new Set();
  for (let at = graph.indexOf(start[0]); at >= 0; at = graph.indexOf(start[0], at + 1)) {
    if (start.some((byte, place) => graph[at + place] !== byte)) continue;
    const name = at + start.length + 1;
    found.add(new TextDecoder().decode(graph.subarray(name, name + graph[name - 1])));
  }
  return [...found];
}

async function started(files, threads) {
  const [script, glue, binary] = await Promise.all([SCRIPT, GLUE, BINARY].map((path) => files.read(path)));
  const urls = [script, glue].map((content) => URL.createObjectURL(new Blob([content], { type: "text/javascript" })));
  try {
    // From the bytes that were compared with their digests, and not from a second answer of the server.
    const ort = await import(urls[0]);
    Object.assign(ort.env.wasm, { numThreads: threads, wasmPaths: { mjs: urls[1] }, wasmBinary: binary });
    ort.env.logLevel = "error";
    return ort;
  } catch (error) {
    throw runtimeError(`ONNX Runtime cannot be started in this browser: ${oneLine(error)}`, error);
  } finally {
    for (const path of [SCRIPT, GLUE, BINARY]) files.drop(path);
  }
}

function given(dtype, data) {
  return dtype === "float16" && "Float16Array" in globalThis ? new Float16Array(data.buffer, data.byteOffset, data.length) : data;
}

function taken({ type, dims, data }) {
  const bits = isFloat(type) && type === "float16" ? new Uint16Array(data.buffer, data.byteOffset, data.length) : data;
  return { dtype: type, shape: [...dims], data: bits };
}
