// Types of client.mjs.

import type { Answer, Arrays, GoldenResult, LoadOptions, TextRequest } from "./loader.d.mts";

/** What a bundle says of itself once it is loaded. */
export interface Loaded {
  manifest: Record<string, unknown>;
  info: { threads: { intra_op: number; inter_op: number }; golden: GoldenResult[]; [name: string]: unknown };
  example: Arrays;
  text?: TextRequest;
  pairs?: boolean;
}

/** A bundle that runs in a worker of its own, for pages. */
export class Client {
  load(base?: string | URL, options?: Omit<LoadOptions, "progress" | "signal">, progress?: (read: number, all: number) => void): Promise<Loaded>;
  run(inputs: Arrays, outputs?: string[]): Promise<Arrays>;
  answer(request: TextRequest, prompt?: string): Promise<Answer>;
  answer(request: TextRequest[], prompt?: string): Promise<Answer[]>;
  close(): void;
}
