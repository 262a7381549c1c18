// The bundle's model in a worker, so that a page stays alive while it loads and computes.

import { described, Model } from "./loader.mjs";

let model = null;

const operations = {
  async load({ base, options = {} }) {
    const progress = (read, all) => postMessage({ progress: [read, all] });
    model = await Model.load(base, { ...options, progress });
    return { manifest: model.manifest, info: model.info(), example: await model.example(), ...(await model.exampleText()) };
  },
  run: ({ inputs, outputs }) => model.run(inputs, outputs),
  answer: ({ request, prompt }) => model.answer(request, prompt),
  async close() {
    await model?.close();
    model = null;
  },
};

addEventListener("message", async ({ data: { id, operation, ...request } }) => {
  try {
    postMessage({ id, result: await operations[operation](request) });
  } catch (error) {
    postMessage({ id, error: described(error) });
  }
});
