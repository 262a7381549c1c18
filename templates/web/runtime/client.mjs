// A bundle that runs in a worker of its own, for pages.

import { BundleError } from "./errors.mjs";

export class Client {
  constructor() {
    this._worker = new Worker(new URL("worker.mjs", import.meta.url), { type: "module" });
    this._waiting = new Map();
    this._last = 0;
    this._worker.addEventListener("message", ({ data }) => this._took(data));
    this._worker.addEventListener("error", (event) => this._failed(event.message || "runtime/worker.mjs cannot be started"));
  }

  /** Load the bundle; `progress` is called with bytes read and bytes of all. See Model.load for the options. */
  load(base = new URL("..", import.meta.url), options = {}, progress = undefined) {
    this._progress = progress;
    return this._call("load", { base: String(base), options });
  }

  /** The model's answer; see Model.run. */
  run(inputs, outputs) {
    return this._call("run", { inputs, outputs });
  }

  /** The answer to a text, a pair of texts or a list; see Model.answer. */
  answer(request, prompt) {
    return this._call("answer", { request, prompt });
  }

  /** End the worker, and whatever it does. */
  close() {
    this._worker.terminate();
    this._failed("the model was closed");
  }

  _call(operation, request) {
    const id = ++this._last;
    return new Promise((resolve, reject) => {
      this._waiting.set(id, { resolve, reject });
      this._worker.postMessage({ id, operation, ...request });
    });
  }

  _took({ id, result, error, progress }) {
    if (progress) {
      this._progress?.(...progress);
      return;
    }
    const { resolve, reject } = this._waiting.get(id);
    this._waiting.delete(id);
    if (error) reject(new BundleError(error.code, error.message));
    else resolve(result);
  }

  _failed(message) {
    for (const { reject } of this._waiting.values()) reject(new BundleError("session", message));
    this._waiting.clear();
  }
}
