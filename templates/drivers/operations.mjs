// What ortc asks of a bundle in a page or in Node: the bundle's own loader does everything that is asked for.

let place = null;
let loader = null;
let model = null;

const operations = {
  async load({ verify, selftest, warmup, threads, cache }) {
    await operations.close();
    loader = await import(place.loader);
    model = await loader.Model.load(place.bundle, { verify, selftest, warmup, threads, cache, nan: "allow" });
    return operations.info();
  },
  async run({ inputs, outputs }) {
    const answer = await loaded().run(await arrays(inputs));
    await place.write(outputs, loader.writeNpz(answer));
    return {};
  },
  tokens: ({ texts }) => ({ rows: loaded().tokens(texts) }),
  answers: async ({ texts, prompt }) => ({ answers: await loaded().answer(texts, prompt) }),
  async example({ sizes }) {
    await loaded().run(await loaded().example(sizes));
    return {};
  },
  async bench({ inputs, runs, warmup, clients }) {
    const given = await arrays(inputs);
    for (let turn = 0; turn < warmup; turn++) await loaded().run(given);
    const latencies = [];
    const began = performance.now();
    for (let turn = 0; turn < runs * (clients ?? 1); turn++) {
      const start = performance.now();
      await loaded().run(given);
      latencies.push(performance.now() - start);
    }
    const wall = performance.now() - began;
    return { latencies_ms: clients == null ? latencies : [wall / latencies.length], wall_seconds: wall / 1000 };
  },
  clock: () => place.clock(),
  info: () => ({ ...loaded().info(), axes: loaded().axes }),
  async close() {
    await model?.close();
    model = null;
    return {};
  },
};

function loaded() {
  if (model === null) throw Object.assign(new Error("no model is loaded. Send load first."), { code: "usage" });
  return model;
}

async function arrays(name) {
  return loader.readNpz(await place.read(name), name);
}

/** Say where the bundle is, `loader` and `bundle`, and how files of arrays are read and written. */
export function settle(given) {
  place = given;
}

/** The reply to one request, as workers write it. */
export async function reply({ op, ...request }) {
  try {
    return { ok: true, result: await operations[op](request) };
  } catch (error) {
    const { code, message } = loader?.described ? loader.described(error) : { code: "internal", message: String(error?.message ?? error) };
    return { ok: false, error: { code: error?.code && code === "internal" ? String(error.code) : code, message } };
  }
}
