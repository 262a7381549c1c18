// The errors that name what a bundle promises and does not hold, with the codes of the Python loader.

export class BundleError extends Error {
  /** `code` is stable and for machines, the message is for people. */
  constructor(code, message, options) {
    super(message, options);
    this.name = "BundleError";
    this.code = code;
  }
}

export const usageError = (message) => new BundleError("usage", message);
export const formatError = (message) => new BundleError("format", message);
export const digestError = (message) => new BundleError("digest-mismatch", message);
export const filesError = (message) => new BundleError("files", message);
export const runtimeError = (message, cause) => new BundleError("runtime-version", message, { cause });
export const sessionError = (message, cause) => new BundleError("session", message, { cause });
export const goldenError = (message) => new BundleError("golden", message);
export const inputError = (message) => new BundleError("input", message);
export const numericsError = (message) => new BundleError("numerics", message);

/** A value as messages show it. */
export function shown(value) {
  if (Array.isArray(value)) return `[${value.map((entry) => (typeof entry === "string" ? entry : shown(entry))).join(", ")}]`;
  return typeof value === "string" ? `'${value}'` : String(value);
}

/** One line of an error that somebody else threw. */
export function oneLine(error) {
  return String(error instanceof Error ? error.message : error).split(/\s+/).join(" ").trim();
}
