// One loaded bundle, ready to answer in a browser or in Node: files verified, golden answers proven, inputs checked.

import { readNpz } from "./arrays.mjs";
import { BundleError, formatError, goldenError, inputError, numericsError, oneLine, sessionError, shown, usageError } from "./errors.mjs";
import { Files } from "./files.mjs";
import { compare } from "./golden.mjs";
import { hasNan, Interface, NanWatch } from "./interface.mjs";
import { PACKAGE, PLACE, Session } from "./session.mjs";

export { readNpz, writeNpz, zeros } from "./arrays.mjs";
export { BundleError } from "./errors.mjs";

/**
 * One loaded bundle. Arrays are objects `{ dtype, shape, data }`, with a typed array as data.
 *
 * `manifest`: manifest.json; `inputs`, `outputs`, `axes`: the interface; `threads`: as used; `golden`: what the
 * self-test saw; `seconds`: where the time of loading went.
 */
export class Model {
  /**
   * Open a bundle.
   *
   * @param base URL of the bundle's directory, in Node also its path; by default the one that this file lies in.
   * @param options
   *   `verify`: `full` compares every file with its digest, `none` trusts; `threads`: of one operator; `selftest`: run
   *   the golden cases, and refuse the bundle when an answer differs; `warmup`: run once at each shape that the manifest
   *   lists; `nan`: `raise` refuses NaN where the golden cases have none; `cache`: keep files by digest in a browser's Cache API;
   *   `progress`: called with bytes read and bytes of all; `signal`: an AbortSignal.
   * Throws a BundleError, whose `code` says what is wrong.
   */
  static async load(base = new URL("..", import.meta.url), options = {}) {
    const { verify = "full", threads, selftest = true, warmup = true, nan = "raise", cache = false, progress, signal } = options;
    if (nan !== "raise" && nan !== "allow") throw usageError(`nan is ${shown(nan)}. Expected raise or allow.`);
    const began = performance.now();
    const files = new Files(base, { verify, cache, progress, signal });
    const manifest = await files.open();
    const verified = performance.now();
    const model = new Model(files, manifest, await Session.open(files, manifest, threads));
    if (manifest.processing) await model._readProcessing(manifest.processing);
    model.seconds = { verify: (verified - began) / 1000, session: (performance.now() - verified) / 1000 };
    signal?.throwIfAborted();
    if (selftest) await model.selftest();
    for (const sizes of warmup ? manifest.warmup : []) await model.run(await model.example(sizes));
    model._nan.on = nan === "raise";
    model.seconds.total = (performance.now() - began) / 1000;
    return model;
  }

  constructor(files, manifest, session) {
    this.manifest = manifest;
    this.interface = new Interface(manifest);
    ({ inputs: this.inputs, outputs: this.outputs, axes: this.axes } = this.interface);
    this.threads = session.threads;
    this.golden = [];
    this._files = files;
    this._session = session;
    this._about = session.info();
    this._nan = new NanWatch();
    this._processing = null;
    this._queue = Promise.resolve();
    for (const [what, listed, found] of [["inputs", this.inputs, session.inputNames], ["outputs", this.outputs, session.outputNames]]) {
      const names = listed.map((tensor) => tensor.name);
      if ([...names].sort().join("\n") !== [...found].sort().join("\n")) {
        throw formatError(`manifest.json lists the ${what} ${shown(names)}, the model has ${shown([...found])}. Build it again.`);
      }
    }
  }

  /** Throw a BundleError of the code `input` unless `inputs` holds exactly what the model takes. Nothing is cast. */
  check(inputs) {
    this.interface.check(inputs, this._nan);
  }

  /**
   * The model's answer: name to array, for the outputs named or for all. Runs follow one another.
   *
   * Throws a BundleError: `input`, `numerics` for NaN where no golden answer has one, or `session`.
   */
  run(inputs, outputs) {
    const turn = this._queue.then(() => this._run(inputs, outputs));
    this._queue = turn.catch(() => undefined);
    return turn;
  }

  async _run(inputs, outputs) {
    const known = this.outputs.map((tensor) => tensor.name);
    const names = outputs ?? known;
    if (!Array.isArray(names) || !names.length || names.some((name) => !known.includes(name))) {
      throw inputError(`outputs=${shown(names)}. Expected a list out of ${known.join(", ")}.`);
    }
    if (this._session === null) throw sessionError(`${this.manifest.name} was closed. Load it again.`);
    this.check(inputs);
    const answer = await this._session.run(inputs, names);
    for (const [name, array] of Object.entries(answer)) {
      if (this._nan.finds(name, array)) throw numericsError(`output '${name}' of ${this.manifest.name} holds NaN, which no golden answer does.`);
    }
    return answer;
  }

  /**
   * The answer to a text or a pair `{ text, text_pair }`, or a list of the answers to a list.
   *
   * An embedding is a list of numbers, classes are `{ label, score }` with the highest score first, the score of a pair
   * is a number. `prompt` names one of the model's prompts. Throws a BundleError of the code `input` for what cannot be
   * answered, and where the bundle takes tensors alone.
   */
  answer(request, prompt) {
    return this._texts().answer(request, (inputs, outputs) => this.run(inputs, outputs), prompt);
  }

  /** Token ids and token types of every text or pair of a list, cut as the model takes them and not padded. */
  tokens(requests, prompt) {
    return requests.map((request) => this._texts().row(request, prompt));
  }

  _texts() {
    if (this._processing) return this._processing;
    throw inputError(`${this.manifest.name} takes tensors alone. Send ${this.inputs.map((input) => input.name).join(", ")} to run.`);
  }

  async _readProcessing({ document, tokenizer }) {
    // Bundles of tensors are without these modules.
    const { Processing } = await import("./processing/answers.mjs");
    let content;
    try {
      content = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(await this._files.read(tokenizer)));
    } catch (error) {
      if (error instanceof BundleError || error.name === "AbortError") throw error;
      throw formatError(`${tokenizer} is not JSON: ${error.message}`);
    }
    this._processing = new Processing(await this._files.json(document), content, { inputs: this.inputs, axes: this.axes });
    this._files.drop(tokenizer);
  }

  /** Inputs of the given axis sizes (typical ones where not given): the first golden inputs, repeated or cut. */
  async example(sizes = {}) {
    const [first] = this.manifest.golden;
    return this.interface.example(sizes, first ? await this._arrays(first.inputs) : {});
  }

  /** `{ text, pairs }`: a request of texts to begin with, and whether pairs are read; nothing of bundles of tensors. */
  async exampleText() {
    if (!this._processing) return {};
    const { cases } = await this._files.json(this.manifest.processing.golden.file);
    return { text: (cases.find(({ answer }) => answer !== null) ?? cases[0]).text, pairs: this._processing.texts.pairs };
  }

  /** Run every golden case, answer every golden text, and throw a BundleError of the code `golden` when an answer differs. */
  async selftest() {
    const began = performance.now();
    const found = [];
    for (const golden of this.manifest.golden) found.push(await this._tested(golden));
    if (this._processing) found.push(await this._answered(this.manifest.processing.golden));
    this.golden = found;
    this.seconds.selftest = (performance.now() - began) / 1000;
    return found;
  }

  async _tested(golden) {
    const [inputs, expected] = [await this._arrays(golden.inputs), await this._arrays(golden.outputs)];
    for (const [name, array] of [...Object.entries(inputs), ...Object.entries(expected)]) if (hasNan(array)) this._nan.known.add(name);
    const names = this.outputs.map((tensor) => tensor.name);
    if (Object.keys(expected).sort().join("\n") !== [...names].sort().join("\n")) {
      throw formatError(`${golden.outputs} holds ${shown(Object.keys(expected))}, expected every output of the model.`);
    }
    let observed;
    try {
      observed = await this.run(inputs);
    } catch (error) {
      throw goldenError(`golden case '${golden.name}' could not be run: ${oneLine(error)}`);
    }
    const seen = {};
    for (const name of names) {
      const limits = { ...golden.tolerance, ...(golden.tolerance.outputs ?? {})[name] };
      const masked = golden.mask && (golden.masked_outputs === null || golden.masked_outputs.includes(name));
      const [result, problem] = compare(expected[name], observed[name], limits, masked ? maskOf(golden, inputs) : null);
      seen[name] = result;
      if (problem) {
        throw goldenError(
          `golden case '${golden.name}', output '${name}': ${problem}. ${PLACE} the bundle does not compute what ` +
            `PyTorch computed; do not use it (${PACKAGE} ${this._session.info().runtime_version}).`,
        );
      }
    }
    const results = Object.values(seen);
    return {
      name: golden.name,
      tolerance: golden.tolerance,
      max_abs: Math.max(...results.map((result) => result.max_abs)),
      cosine: Math.min(...results.map((result) => result.cosine)),
      outputs: seen,
    };
  }

  async _answered({ file, tolerance }) {
    const cosine = await this._processing.check(await this._files.json(file), tolerance, (inputs, outputs) => this.run(inputs, outputs));
    return { name: "answers", tolerance, cosine };
  }

  async _arrays(path) {
    return readNpz(await this._files.read(path), path);
  }

  /** Identity, runtime, threads and times, for logs and measurements. */
  info() {
    const { name, version, target, variant, fit_to_serve: fit } = this.manifest;
    return {
      name, version, target, variant: variant.name, precision: variant.precision, fit_to_serve: fit,
      ...this._about, threads: { intra_op: this.threads, inter_op: 1 }, seconds: { ...this.seconds }, golden: this.golden,
    };
  }

  /** Free the session; harmless a second time. */
  async close() {
    const session = this._session;
    this._session = null;
    await this._queue;
    await session?.close();
  }
}

/** The mask of a golden case, not 0 where positions are read. */
function maskOf(golden, inputs) {
  const mask = inputs[golden.mask];
  return golden.mask_is_padding ? { ...mask, data: Uint8Array.from(mask.data, (value) => (value ? 0 : 1)) } : mask;
}

/** An error as pages and workers pass it on. */
export function described(error) {
  const code = error instanceof BundleError ? error.code : error?.name === "AbortError" ? "aborted" : "internal";
  return { code, message: oneLine(error) };
}
