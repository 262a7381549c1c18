// The files of a bundle: every one compared with SHA256SUMS and manifest.json before anything is made of it.

import { digestError, filesError, formatError, usageError } from "./errors.mjs";

export const FORMAT_VERSION = 1;
const AGAIN = "Get the bundle again, and serve its files as they are.";
const CACHE = "ortc-bundles";
/** Files that no page needs, and that hosts of static files may keep to themselves. */
const DOCUMENTS = new Set(["README.md", "sbom.cdx.json", "_headers"]);

/** The files of one bundle by path, each read once. */
export class Files {
  /**
   * @param base URL of the bundle's directory.
   * @param options `verify`: `full` or `none`; `cache`: whether files are kept by digest from visit to visit;
   *   `progress`: called with bytes read and bytes of all; `signal`: aborts reading.
   */
  constructor(base, { verify = "full", cache = false, progress, signal } = {}) {
    if (verify !== "full" && verify !== "none") throw usageError(`verify is '${verify}'. Expected full or none.`);
    this.base = new URL(base);
    this.verify = verify;
    this._cache = cache;
    this._progress = progress;
    this._signal = signal;
    this._listed = new Map();
    this._read = new Map();
    this._bytes = { read: 0, all: 0 };
  }

  /** Read and check manifest.json, and every file that it lists where `verify` is `full`. */
  async open() {
    const manifest = await this._manifest();
    this._listed = new Map((manifest.files ?? []).map((file) => [file.path, file]));
    const wanted = [...this._listed.values()].filter((file) => !DOCUMENTS.has(file.path));
    this._bytes.all = wanted.reduce((sum, file) => sum + file.bytes, 0);
    if (this.verify === "full") await Promise.all(wanted.map((file) => this.read(file.path)));
    return manifest;
  }

  /** The bytes of a file, after they were compared with its digest. */
  read(path) {
    if (!this._read.has(path)) this._read.set(path, this._checked(path));
    return this._read.get(path);
  }

  /** Forget the bytes of a file, which may be large. */
  drop(path) {
    this._read.delete(path);
  }

  /** A JSON document of the bundle. */
  async json(path) {
    return parsed(path, await this.read(path));
  }

  async _manifest() {
    const content = await this._fetched("manifest.json");
    if (this.verify === "full") {
      const sums = new TextDecoder().decode(await this._fetched("SHA256SUMS"));
      for (const [number, line] of sums.split("\n").entries()) {
        const found = /^([0-9a-f]{64}) [ *](.+)$/.exec(line);
        if (found) this._listed.set(found[2], { path: found[2], sha256: found[1] });
        else if (line) throw digestError(`SHA256SUMS, line ${number + 1}: expected \`sha256  path\`. ${AGAIN}`);
      }
      await same("manifest.json", content, this._listed.get("manifest.json")?.sha256 ?? "nothing", "SHA256SUMS");
    }
    const manifest = parsed("manifest.json", content);
    if (manifest.kind !== "ortc-bundle") throw formatError(`manifest.json: kind is '${manifest.kind}', expected 'ortc-bundle'.`);
    if (this.verify === "full") this._agree(manifest);
    return manifest;
  }

  /** Both lists name the same files with the same digests. */
  _agree(manifest) {
    const names = new Set((manifest.files ?? []).map((file) => file.path));
    for (const path of this._listed.keys()) {
      if (path !== "manifest.json" && !names.has(path)) throw digestError(`SHA256SUMS lists '${path}', manifest.json does not. ${AGAIN}`);
    }
    for (const file of manifest.files ?? []) {
      const listed = this._listed.get(file.path);
      if (!listed) throw digestError(`manifest.json lists '${file.path}', SHA256SUMS does not. ${AGAIN}`);
      if (listed.sha256 !== file.sha256) throw digestError(`SHA256SUMS and manifest.json disagree about ${file.path}. ${AGAIN}`);
    }
  }

  async _checked(path) {
    if (this.verify === "none") return this._fetched(path);
    const listed = this._listed.get(path);
    if (!listed) throw filesError(`${path} is not in manifest.json. ${AGAIN}`);
    const key = new Request(new URL(`.sha256/${listed.sha256}`, this.base));
    const cache = this._cache && "caches" in globalThis ? await caches.open(CACHE) : null;
    const kept = await cache?.match(key);
    const content = kept ? new Uint8Array(await kept.arrayBuffer()) : await this._fetched(path);
    try {
      if (content.length !== listed.bytes) throw digestError(`${path} has ${content.length} bytes, manifest.json says ${listed.bytes}. ${AGAIN}`);
      await same(path, content, listed.sha256, "manifest.json");
    } catch (error) {
      await cache?.delete(key);
      throw error;
    }
    // A full disk costs the next visit time, and nothing else.
    if (cache && !kept) await cache.put(key, new Response(content)).catch(() => undefined);
    this._bytes.read += content.length;
    this._progress?.(this._bytes.read, this._bytes.all);
    return content;
  }

  async _fetched(path) {
    const url = new URL(path.split("/").map(encodeURIComponent).join("/"), this.base);
    let response;
    try {
      response = await fetch(url, { signal: this._signal, credentials: "same-origin" });
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw filesError(`${path} cannot be fetched: ${error.message}. See that ${url} is served.`);
    }
    if (!response.ok) throw filesError(`${path} cannot be fetched: HTTP status ${response.status}. See that ${url} is served.`);
    return new Uint8Array(await response.arrayBuffer());
  }
}

function parsed(path, content) {
  let document;
  try {
    document = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(content));
  } catch (error) {
    throw formatError(`${path} is not JSON: ${error.message}. ${AGAIN}`);
  }
  if (document?.format_version !== FORMAT_VERSION) {
    throw formatError(`${path}: format_version is ${document?.format_version}, this loader reads ${FORMAT_VERSION}. Use the loader that lies in the bundle's own runtime/.`);
  }
  return document;
}

async function same(path, content, expected, source) {
  if (!globalThis.crypto?.subtle) {
    throw usageError("the page is no secure context, so that no digest can be checked. Serve it over https, or from localhost.");
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  const found = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (found !== expected) throw digestError(`${path} was changed or damaged: its sha256 is ${found}, ${source} says ${expected}. ${AGAIN}`);
}
