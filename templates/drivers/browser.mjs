// Answers requests of ortc in a page of the bundle's site.

import { reply as answered, settle } from "./operations.mjs";

settle({
  loader: "/runtime/loader.mjs",
  bundle: new URL("/", location.href),
  async read(url) {
    return new Uint8Array(await (await fetch(url)).arrayBuffer());
  },
  async write(url, content) {
    const response = await fetch(url, { method: "POST", body: content });
    if (!response.ok) throw new Error(`the answer cannot be handed over: HTTP status ${response.status}`);
  },
});

/** The reply to one request, as workers write it. */
export async function reply(request) {
  return answered(request);
}
