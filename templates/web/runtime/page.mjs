// The page of a bundle: loads the model in a worker, and asks it with what the form holds.

import { holderOf, numbersOf, sizeOf } from "./arrays.mjs";
import { Client } from "./client.mjs";
import { isolate } from "./isolation.mjs";

const at = (id) => document.getElementById(id);
const [MOST, FEW, CLASSES] = [4096, 16, 20]; // values, numbers of a vector and classes that are shown
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
  if (threads !== 1) await isolate();
  const loaded = await client.load(undefined, options, (read, all) => Object.assign(at("progress"), { value: read, max: all }));
  manifest = loaded.manifest;
  document.title = manifest.name;
  at("title").textContent = `${manifest.name} ${manifest.version}`;
  const threadsUsed = loaded.info.threads.intra_op;
  at("about").textContent = `${manifest.variant.precision}, ${threadsUsed} ${threadsUsed === 1 ? "thread" : "threads"}, in this browser alone: nothing leaves it.`;
  at("unfit").hidden = manifest.fit_to_serve;
  if (!manifest.fit_to_serve) at("unfit").textContent = `Not fit to serve: ${manifest.unfit_reason}`;
  const { processing } = manifest;
  const fields = processing ? textFields(processing, loaded) : manifest.inputs.flatMap((input) => field(input, loaded.example[input.name]));
  at("fields").replaceChildren(...fields);
  at("progress").hidden = true;
  at("form").hidden = false;
  state("ready");
}

function field(input, example) {
  const value = JSON.stringify(nested(valuesOf(example), example.shape));
  const nodes = area(input.name, `${input.name}: ${input.dtype} [${input.shape.join(", ")}]`, value);
  nodes[1].spellcheck = false;
  return nodes;
}

/** One field for a text, and a second one where the model reads pairs. */
function textFields({ kind }, { pairs, text }) {
  const first = area("text", "Text", typeof text === "string" ? text : text.text);
  if (!pairs) return first;
  return [...first, ...area("text_pair", kind === "score" ? "Second text" : "Second text, if any", text.text_pair ?? "")];
}

function area(name, title, value) {
  const label = made("label", title);
  label.htmlFor = `field-${name}`;
  const node = made("textarea");
  node.id = label.htmlFor;
  node.value = value;
  return [label, node];
}

function requested() {
  const [text, pair] = ["text", "text_pair"].map((name) => at(`field-${name}`)?.value ?? "");
  return pair || manifest.processing.kind === "score" ? { text, text_pair: pair } : text;
}

/** An answer to a text: bars of classes, a score, or the beginning of a vector. */
function answered(answer) {
  if (typeof answer === "number") return [made("p", answer.toPrecision(6))];
  if (typeof answer[0] !== "number" && !Array.isArray(answer[0])) return answer.slice(0, CLASSES).map(bar);
  const vectors = Array.isArray(answer[0]) ? answer : [answer];
  const few = vectors[0].slice(0, FEW).map((value) => value.toFixed(5));
  return [made("p", `${vectors.length === 1 ? "" : `${vectors.length} tokens, each with `}${vectors[0].length} numbers`), made("pre", `${few.join(", ")} …`)];
}

function bar({ label, score }) {
  const row = made("div", undefined, "row");
  const progress = Object.assign(made("progress"), { max: 1, value: Math.min(1, Math.max(0, score)) });
  progress.setAttribute("aria-label", label);
  row.append(made("span", label), progress, made("span", score.toFixed(4), "number"));
  return row;
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

function tensors() {
  return Object.fromEntries(manifest.inputs.map((input) => [input.name, arrayOf(input, at(`field-${input.name}`).value)]));
}

async function ask(event) {
  event.preventDefault();
  let nodes;
  const began = performance.now();
  try {
    nodes = manifest.processing ? answered(await client.answer(requested())) : drawn(await client.run(tensors()));
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
