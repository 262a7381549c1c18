// Where Node gets the files of a bundle: from its directory on this machine.

import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { readFile, realpath } from "node:fs/promises";
import path from "node:path";
import { fileURLToPath } from "node:url";

import { filesError, usageError } from "./errors.mjs";

export class Source {
  /**
   * @param base the bundle's directory, as a path or as a URL of the scheme file.
   * @param options `signal`: aborts reading.
   */
  constructor(base, { signal }) {
    const text = String(base);
    if (/^https?:/i.test(text)) throw usageError(`the bundle's directory is ${text}. Expected a path or a URL of the scheme file.`);
    this.base = text.startsWith("file:") ? fileURLToPath(text) : path.resolve(text);
    this._signal = signal;
  }

  /** Whether a listed file is one to compare: on a disk every file is there. */
  has() {
    return true;
  }

  async read(name) {
    return this._given(name, async (place) => new Uint8Array(await readFile(place, { signal: this._signal })));
  }

  /** sha256 and size of a file, which is read in pieces. */
  async digest(name) {
    return this._given(name, async (place) => {
      const hash = createHash("sha256");
      let bytes = 0;
      for await (const piece of createReadStream(place, { signal: this._signal, highWaterMark: 1 << 20 })) {
        hash.update(piece);
        bytes += piece.length;
      }
      return { bytes, sha256: hash.digest("hex") };
    });
  }

  /** The path of a file of the bundle on this machine. */
  place(name) {
    const parts = name.split("/");
    if (name.includes("\0") || name.includes("\\") || parts.some((part) => ["", ".", ".."].includes(part))) {
      throw filesError(`'${name}' leads out of the bundle. Get the bundle again.`);
    }
    return path.join(this.base, ...parts);
  }

  // The disk is the cache.
  async kept() {
    return null;
  }

  async keep() {}

  async forget() {}

  async _given(name, take) {
    const place = this.place(name);
    let found;
    try {
      const [root, real] = await Promise.all([realpath(this.base), realpath(place)]);
      found = real.startsWith(root + path.sep) ? await take(place) : null;
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw filesError(`${name} cannot be read: ${error.code ?? error.message}. See that ${place} is there.`);
    }
    if (found === null) throw filesError(`${name} is a link that leads out of the bundle. Get the bundle again.`);
    return found;
  }
}

/** sha256 of some bytes, in hexadecimal digits. */
export async function digestOf(content) {
  return createHash("sha256").update(content).digest("hex");
}
