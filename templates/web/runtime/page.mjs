// The page of a bundle: loads the model in a worker, and asks it with what the form holds.

import { holderOf, numbersOf, sizeOf } from "./arrays.mjs";
import { Client } from "./client.mjs";

const at = (id) => document.getElementById(id);
const MOST = 4096;
const state = (name) => (document.documentElement.dataset.state = name);
const client = new Client();
let manifest = null;

function made(kind, text, name) {
  const node = document.createElement(kind);
  if (text !== undefined) node.textContent = text;
  if (name) node.className = name;
  return node;
}

function refuse(error) {
  state("refused");
  at("about").textContent = "This model was refused:";
  at("reason").textContent = error.message;
  at("reason").hidden = false;
  at("progress").hidden = true;
}

async function load() {
  const options = { cache: true };
  const threads = Number(new URLSearchParams(location.search).get("threads"));
  if (threads > 0) options.threads = threads;
  const loaded = await client.load(undefined, options, (read, all) => Object.assign(at("progress"), { value: read, max: all }));
  manifest = loaded.manifest;
  document.title = manifest.name;
  at("title").textContent = `${manifest.name} ${manifest.version}`;
  const threadsUsed = loaded.info.threads.intra_op;
  at("about").textContent = `${manifest.variant.precision}, ${threadsUsed} ${threadsUsed === 1 ? "thread" : "threads"}, in this browser alone: nothing leaves it.`;
  at("unfit").hidden = manifest.fit_to_serve;
  if (!manifest.fit_to_serve) at("unfit").textContent = `Not fit to serve: ${manifest.unfit_reason}`;
  at("fields").replaceChildren(...manifest.inputs.flatMap((input) => field(input, loaded.example[input.name])));
  at("progress").hidden = true;
  at("form").hidden = false;
  state("ready");
}

function field(input, example) {
  const label = made("label", `${input.name}: ${input.dtype} [${input.shape.join(", ")}]`);
  label.htmlFor = `field-${input.name}`;
  const area = made("textarea");
  area.id = label.htmlFor;
  area.spellcheck = false;
  area.value = JSON.stringify(nested(valuesOf(example), example.shape));
  return [label, area];
}

function valuesOf(array) {
  return Array.from(numbersOf(array), (value) => (array.dtype === "float32" || array.dtype === "float16" ? Number(value.toPrecision(9)) : value));
}

function nested(values, shape) {
  if (shape.length < 2) return shape.length ? values : values[0];
  const size = sizeOf(shape.slice(1));
  return Array.from({ length: shape[0] }, (_, row) => nested(values.slice(row * size, (row + 1) * size), shape.slice(1)));
}

function shapeOf(value) {
  return Array.isArray(value) ? [value.length, ...(value.length ? shapeOf(value[0]) : [])] : [];
}

function arrayOf(input, text) {
  const value = JSON.parse(text);
  const flat = [value].flat(Infinity);
  const wide = input.dtype === "int64" || input.dtype === "uint64";
  return { dtype: input.dtype, shape: shapeOf(value), data: holderOf(input.dtype).from(flat, (entry) => (wide ? BigInt(entry) : Number(entry))) };
}

function drawn(answer) {
  return Object.entries(answer).flatMap(([name, array]) => {
    const values = valuesOf({ ...array, data: array.data.slice(0, MOST) });
    const more = array.data.length > values.length ? " …" : "";
    return [made("p", `${name}: ${array.dtype} [${array.shape.join(", ")}]`), made("pre", values.join(", ") + more)];
  });
}

async function ask(event) {
  event.preventDefault();
  let nodes;
  const began = performance.now();
  try {
    const inputs = Object.fromEntries(manifest.inputs.map((input) => [input.name, arrayOf(input, at(`field-${input.name}`).value)]));
    nodes = drawn(await client.run(inputs));
    at("latency").textContent = `${(performance.now() - began).toFixed(1)} ms`;
  } catch (error) {
    at("latency").textContent = "";
    nodes = [made("p", error.message, "wrong")];
  }
  at("answer").replaceChildren(...nodes);
  at("result").hidden = false;
}

at("form").addEventListener("submit", ask);
load().catch(refuse);
