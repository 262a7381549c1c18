// Where a page gets the files of a bundle: from the server of the page, or from its Cache API by their digests.

import { filesError, usageError } from "./errors.mjs";

const CACHE = "ortc-bundles";
/** Bytes of a part of a file: hosts of static files refuse larger ones, and `ortc pack --format static` cuts them. */
const PART = 25 * 2 ** 20;
/** Files that no page needs, and that hosts of static files may keep to themselves. */
const DOCUMENTS = new Set(["README.md", "sbom.cdx.json", "_headers"]);

export class Source {
  /**
   * @param base URL of the bundle's directory.
   * @param options `cache`: whether files are kept by digest from visit to visit; `signal`: aborts reading.
   */
  constructor(base, { cache, signal }) {
    this.base = new URL(base);
    this._cache = cache;
    this._signal = signal;
  }

  /** Whether a listed file is one to compare. */
  has(path) {
    return !DOCUMENTS.has(path);
  }

  /** The bytes of a file; of one with more than 25 MiB also from its parts, where the whole is not served. */
  async read(path, bytes = 0) {
    if (!(bytes > PART)) return this._fetched(path);
    // Some hosts answer with a page of theirs where there is no file.
    const whole = await this._fetched(path).catch((error) => (error.name === "AbortError" ? Promise.reject(error) : null));
    if (whole?.length === bytes) return whole;
    const parts = await Promise.all(Array.from({ length: Math.ceil(bytes / PART) }, (_, part) => this._fetched(`${path}.part${part}`)));
    return new Uint8Array(await new Blob(parts).arrayBuffer());
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

  /** The bytes that an earlier visit kept, or null. */
  async kept(sha256) {
    const found = await (await this._opened())?.match(this._key(sha256));
    return found ? new Uint8Array(await found.arrayBuffer()) : null;
  }

  async keep(sha256, content) {
    // A full disk costs the next visit time, and nothing else.
    await (await this._opened())?.put(this._key(sha256), new Response(content)).catch(() => undefined);
  }

  async forget(sha256) {
    await (await this._opened())?.delete(this._key(sha256));
  }

  async _opened() {
    return this._cache && "caches" in globalThis ? caches.open(CACHE) : null;
  }

  _key(sha256) {
    return new Request(new URL(`.sha256/${sha256}`, this.base));
  }
}

/** sha256 of some bytes, in hexadecimal digits. */
export async function digestOf(content) {
  if (!globalThis.crypto?.subtle) {
    throw usageError("the page is no secure context, so that no digest can be checked. Serve it over https, or from localhost.");
  }
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
