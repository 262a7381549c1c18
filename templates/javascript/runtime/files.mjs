// The files of a bundle: every one compared with SHA256SUMS and manifest.json before anything is made of it.

import { digestError, filesError, formatError, usageError } from "./errors.mjs";
import { digestOf, Source } from "./source.mjs";

export const FORMAT_VERSION = 1;
const AGAIN = "Get the bundle again, and serve its files as they are.";

/** The files of one bundle by path, each read once. */
export class Files {
  /**
   * @param base where the bundle's directory is; see Source.
   * @param options `verify`: `full` or `none`; `cache`: whether files are kept by digest from visit to visit;
   *   `progress`: called with bytes read and bytes of all; `signal`: aborts reading.
   */
  constructor(base, { verify = "full", cache = false, progress, signal } = {}) {
    if (verify !== "full" && verify !== "none") throw usageError(`verify is '${verify}'. Expected full or none.`);
    this.verify = verify;
    this._source = new Source(base, { cache, signal });
    this._progress = progress;
    this._listed = new Map();
    this._read = new Map();
    this._bytes = { read: 0, all: 0 };
  }

  /** Read and check manifest.json, and every file that it lists where `verify` is `full`. */
  async open() {
    const manifest = await this._manifest();
    this._listed = new Map((manifest.files ?? []).map((file) => [file.path, file]));
    const wanted = [...this._listed.values()].filter((file) => this._source.has(file.path));
    this._bytes.all = wanted.reduce((sum, file) => sum + file.bytes, 0);
    if (this.verify === "full") await Promise.all(wanted.map((file) => (this._source.digest ? this._compared(file) : this.read(file.path))));
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
    const content = await this._source.read("manifest.json");
    if (this.verify === "full") {
      const sums = new TextDecoder().decode(await this._source.read("SHA256SUMS"));
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
    if (this.verify === "none") return this._source.read(path, this._listed.get(path)?.bytes);
    const listed = this._listed.get(path);
    if (!listed) throw filesError(`${path} is not in manifest.json. ${AGAIN}`);
    const kept = await this._source.kept(listed.sha256);
    const content = kept ?? (await this._source.read(path, listed.bytes));
    try {
      sized(listed, content.length);
      await same(path, content, listed.sha256, "manifest.json");
    } catch (error) {
      await this._source.forget(listed.sha256);
      throw error;
    }
    if (!kept) await this._source.keep(listed.sha256, content);
    this._advanced(content.length);
    return content;
  }

  /** Compare a file that is not kept in memory. */
  async _compared(listed) {
    const { bytes, sha256 } = await this._source.digest(listed.path);
    sized(listed, bytes);
    expect(listed.path, sha256, listed.sha256, "manifest.json");
    this._advanced(bytes);
  }

  /** Whether the bundle lists a file; unknown where nothing is verified. */
  lists(path) {
    return this._listed.has(path);
  }

  /** Where a file lies on this machine; it was compared with its digest when the bundle was opened. */
  place(path) {
    if (this.verify === "full" && !this._listed.has(path)) throw filesError(`${path} is not in manifest.json. ${AGAIN}`);
    return this._source.place(path);
  }

  _advanced(bytes) {
    this._bytes.read += bytes;
    this._progress?.(this._bytes.read, this._bytes.all);
  }
}

function sized({ path, bytes }, found) {
  if (found !== bytes) throw digestError(`${path} has ${found} bytes, manifest.json says ${bytes}. ${AGAIN}`);
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
  expect(path, await digestOf(content), expected, source);
}

function expect(path, found, expected, source) {
  if (found !== expected) throw digestError(`${path} was changed or damaged: its sha256 is ${found}, ${source} says ${expected}. ${AGAIN}`);
}
