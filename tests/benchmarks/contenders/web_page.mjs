// One contender in a page: the bundle's own loader, or transformers.js; both compute where the page does.

const inputs = (ids) => ({ input_ids: ids, attention_mask: ids.map(() => 1) });
let once = null;

/** Load `ours` or `theirs` with a number of threads, and answer once. */
export async function load(name, threads, ids) {
  const shape = [1, ids.length];
  const rows = Object.entries(inputs(ids)).map(([input, values]) => [input, BigInt64Array.from(values, BigInt)]);
  if (name === "ours") {
    const { Model } = await import("/ours/runtime/loader.mjs");
    const model = await Model.load(new URL("/ours/", location.href), { threads, warmup: false });
    const given = Object.fromEntries(rows.map(([input, data]) => [input, { dtype: "int64", shape, data }]));
    once = async () => (await model.run(given)).sentence_embedding.data;
  } else {
    const { AutoModel, Tensor, env } = await import("@huggingface/transformers");
    Object.assign(env, { allowRemoteModels: false, allowLocalModels: true, localModelPath: "/packed/", useBrowserCache: false, useWasmCache: false });
    Object.assign(env.backends.onnx.wasm, { numThreads: threads, wasmPaths: "/node_modules/onnxruntime-web/dist/" });
    const model = await AutoModel.from_pretrained(name, { device: "wasm" });
    const given = Object.fromEntries(rows.map(([input, data]) => [input, new Tensor("int64", data, shape)]));
    once = async () => (await model(given)).sentence_embedding.data;
  }
  return Array.from(await once());
}

/** Milliseconds of each of some runs. */
export async function turn(runs) {
  const found = [];
  for (let run = 0; run < runs; run++) {
    const began = performance.now();
    await once();
    found.push(performance.now() - began);
  }
  return found;
}
