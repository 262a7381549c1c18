// Types of loader.mjs, for editors and compilers.

export type DType =
  | "float64" | "float32" | "float16" | "int64" | "int32" | "int16" | "int8"
  | "uint64" | "uint32" | "uint16" | "uint8" | "bool";

/** Values in row-major order; float16 as its bits, bool as 0 and 1. */
export interface NdArray {
  dtype: DType;
  shape: number[];
  data:
    | Float64Array | Float32Array | Uint16Array | BigInt64Array | Int32Array | Int16Array | Int8Array
    | BigUint64Array | Uint32Array | Uint8Array;
}

export type Arrays = Record<string, NdArray>;

export interface Tensor {
  name: string;
  dtype: DType;
  shape: (string | number | null)[];
  range?: [number, number] | null;
}

export interface Axis {
  name: string;
  min: number;
  typical: number;
  max: number;
  multiple_of?: number;
}

export interface LoadOptions {
  verify?: "full" | "none";
  threads?: number;
  selftest?: boolean;
  warmup?: boolean;
  nan?: "raise" | "allow";
  cache?: boolean;
  progress?: (read: number, all: number) => void;
  signal?: AbortSignal;
}

export interface GoldenResult {
  name: string;
  max_abs?: number;
  cosine: number;
  outputs?: Record<string, { max_abs: number; cosine: number }>;
}

/** A text, or a pair of texts where the model reads them. */
export type TextRequest = string | { text: string; text_pair: string };

/** A vector, vectors of tokens, classes with their scores, or the score of a pair. */
export type Answer = number[] | number[][] | { label: string; score: number }[] | number;

export interface Tokens {
  ids: number[];
  types: number[];
}

export class BundleError extends Error {
  code: string;
  constructor(code: string, message: string, options?: ErrorOptions);
}

export class Model {
  static load(base?: URL | string, options?: LoadOptions): Promise<Model>;
  readonly manifest: Record<string, unknown>;
  readonly inputs: Tensor[];
  readonly outputs: Tensor[];
  readonly axes: Axis[];
  readonly threads: number;
  readonly golden: GoldenResult[];
  readonly seconds: Record<string, number>;
  check(inputs: Arrays): void;
  run(inputs: Arrays, outputs?: string[]): Promise<Arrays>;
  answer(request: TextRequest, prompt?: string): Promise<Answer>;
  answer(request: TextRequest[], prompt?: string): Promise<Answer[]>;
  tokens(requests: TextRequest[], prompt?: string): Tokens[];
  example(sizes?: Record<string, number>): Promise<Arrays>;
  selftest(): Promise<GoldenResult[]>;
  info(): Record<string, unknown>;
  close(): Promise<void>;
}

export function readNpz(bytes: Uint8Array, name: string): Promise<Arrays>;
export function writeNpz(arrays: Arrays): Uint8Array;
export function zeros(dtype: DType, shape: number[]): NdArray;
export function described(error: unknown): { code: string; message: string };
