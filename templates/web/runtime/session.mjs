// ONNX Runtime's session: its WebAssembly build, from the bundle's own verified files, as session.json says.

import { formatError, inputError, oneLine, runtimeError, sessionError, shown, usageError } from "./errors.mjs";
import { isFloat } from "./arrays.mjs";

const ORT = "runtime/ort/";
const SCRIPT = `${ORT}ort.wasm.min.mjs`;
const GLUE = `${ORT}ort-wasm-simd-threaded.mjs`;
const BINARY = `${ORT}ort-wasm-simd-threaded.wasm`;
export const PROVIDER = "CPUExecutionProvider";
const MOST_THREADS = 64;

// What session.json may say: how to compute, and nothing that reads or writes files or changes a log.
const SESSION_OPTIONS = {
  graph_optimization_level: "graphOptimizationLevel",
  execution_mode: "executionMode",
  enable_mem_pattern: "enableMemPattern",
  enable_cpu_mem_arena: "enableCpuMemArena",
};
const CONFIG_ENTRIES = new Set(
  `optimization.disable_specified_optimizers optimization.enable_cast_chain_elimination
  optimization.enable_gelu_approximation session.allow_released_opsets_only session.disable_aot_function_inlining
  session.disable_cpu_ep_fallback session.disable_double_qdq_remover session.disable_prepacking
  session.disable_quant_qdq session.dynamic_block_base session.enable_quant_qdq_cleanup session.force_spinning_stop
  session.graph_optimizations_loop_level session.inter_op.allow_spinning session.intra_op.allow_spinning
  session.intra_op_thread_affinities session.qdq_matmulnbits_accuracy_level session.qdqisint8allowed
  session.set_denormal_as_zero session.strict_shape_type_inference session.use_device_allocator_for_initializers
  session.use_env_allocators`.split(/\s+/),
);

/** Threads of one operator: as asked for, else by the bundle's policy; one where the page is not isolated. */
export function threadCount(policy, asked) {
  if (asked !== undefined && asked !== null && !(Number.isSafeInteger(asked) && asked >= 1)) {
    throw usageError(`threads is ${shown(asked)}. Expected a whole number from 1 on.`);
  }
  if (!globalThis.crossOriginIsolated) return 1;
  // Browsers tell logical processors alone, of which two often share one core.
  const logical = navigator.hardwareConcurrency || 1;
  const physical = logical > 2 ? Math.ceil(logical / 2) : logical;
  return Math.min(asked ?? (policy === "physical" ? physical : policy), MOST_THREADS);
}

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
    const options = optionsOf(config);
    const threads = threadCount(config.threads.intra_op, asked);
    const ort = await started(files, threads);
    const model = await files.read(manifest.model.file);
    // Weights of large models lie beside the graph.
    const external = model.length < manifest.model.bytes ? [`${manifest.model.file}.data`] : [];
    if (external.length) {
      options.externalData = await Promise.all(external.map(async (path) => ({ path: path.split("/").pop(), data: await files.read(path) })));
    }
    try {
      return new Session(ort, await ort.InferenceSession.create(model, options), threads);
    } catch (error) {
      throw sessionError(`onnxruntime refused the model: ${oneLine(error)}`, error);
    } finally {
      for (const path of [manifest.model.file, ...external]) files.drop(path);
    }
  }

  get runtimeVersion() {
    return this._ort.env.versions.web ?? this._ort.env.versions.common;
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

/** The options of a session that session.json asks for. */
function optionsOf(config) {
  const { session_options: options = {}, config_entries: entries = {}, providers = [] } = config;
  const refused = [
    ...Object.keys(options).filter((name) => !Object.hasOwn(SESSION_OPTIONS, name)),
    ...Object.keys(entries).filter((name) => !CONFIG_ENTRIES.has(name)),
    ...providers.filter(({ name, options: own }) => name !== PROVIDER || Object.keys(own).length).map(({ name }) => name),
    ...Object.keys(config.environment ?? {}),
  ];
  if (refused.length) throw formatError(`session.json may not have ${refused.map(shown).join(", ")}, which this loader refuses. Get the bundle again.`);
  const named = Object.entries(options).map(([name, value]) => [SESSION_OPTIONS[name], value === "off" ? "disabled" : value]);
  return { executionProviders: ["wasm"], extra: { ...entries }, ...Object.fromEntries(named) };
}

function given(dtype, data) {
  return dtype === "float16" && "Float16Array" in globalThis ? new Float16Array(data.buffer, data.byteOffset, data.length) : data;
}

function taken({ type, dims, data }) {
  const bits = isFloat(type) && type === "float16" ? new Uint16Array(data.buffer, data.byteOffset, data.length) : data;
  return { dtype: type, shape: [...dims], data: bits };
}
