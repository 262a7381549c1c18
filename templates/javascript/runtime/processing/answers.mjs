// Answers to texts: rows into runs of the model, and outputs into what the model's users read.

import { numbersOf, sizeOf } from "../arrays.mjs";
import { formatError, goldenError, inputError } from "../errors.mjs";
import { Texts } from "./texts.mjs";

const FORMAT_VERSION = 1;
const TIE = 1e-6; // scores of labels that differ by less are equal
const SHOWN = 60;
const PAIR = ["text", "text_pair"];

/** Kinds of answers, by what each makes of one row of the output: its numbers, its shape, and the row. */
const FORMS = {
  embedding: (values) => values,
  "token-embeddings": (values, [, hidden], processing, row) => {
    const [start, end] = processing.texts.place(row, values.length / hidden);
    return Array.from({ length: end - start }, (_, token) => values.slice((start + token) * hidden, (start + token + 1) * hidden));
  },
  score: (values) => values[0],
  labels: (values, _, { labels }) => labels.map((label, place) => ({ label, score: values[place] })).sort((left, right) => right.score - left.score),
};

/** The processing of one bundle: `document` is processing.json, `tokenizer` what tokenizer.json holds. */
export class Processing {
  constructor(document, tokenizer, manifest) {
    if (document.format_version !== FORMAT_VERSION) throw formatError(`processing.json: format_version is ${document.format_version}, expected ${FORMAT_VERSION}`);
    this.kind = document.answer.kind;
    if (!Object.hasOwn(FORMS, this.kind)) throw formatError(`the answer '${this.kind}' is unknown, expected one of ${Object.keys(FORMS).join(", ")}`);
    this.output = document.answer.output;
    this.labels = document.answer.labels ?? [];
    this.texts = new Texts(document.text, tokenizer, manifest);
    this.scoresPairs = this.kind === "score";
  }

  /** The row of tokens of a text or of a pair `{ text, text_pair }`. */
  row(entry, prompt) {
    if (typeof entry === "string") {
      if (this.scoresPairs) throw inputError(`the model scores pairs of texts. Send ${PAIR.join(" and ")}.`);
      return this.texts.row(entry, null, prompt);
    }
    if (entry === null || typeof entry !== "object" || Array.isArray(entry)) throw inputError(`a text is ${kindOf(entry)}. Expected a string.`);
    const keys = Object.keys(entry).sort();
    if (keys.join("\n") !== PAIR.join("\n")) throw inputError(`a pair has [${keys.join(", ")}]. Expected ${PAIR.join(" and ")}.`);
    if (!this.texts.pairs) throw inputError("the model takes single texts, not pairs of texts.");
    return this.texts.row(entry.text, entry.text_pair, prompt);
  }

  /**
   * The answer to a text or a pair, or a list of answers to a list.
   *
   * `run` runs the model on checked inputs and gives its outputs. An embedding is a list of numbers, classes are
   * `{ label, score }` with the highest score first, and the score of a pair is a number.
   */
  async answer(request, run, prompt) {
    const entries = Array.isArray(request) ? request : [request];
    const rows = entries.map((entry) => this.row(entry, prompt));
    const found = [];
    // One text in a run: the answer to one does not depend on others.
    for (const row of rows) found.push(this._shaped((await run(this.texts.inputs([row]), [this.output]))[this.output], row));
    return Array.isArray(request) ? found : found[0];
  }

  /**
   * Answer every golden text again; the least similarity to a recorded answer.
   *
   * Throws a BundleError of the code `golden` when token ids or an answer differ.
   */
  async check({ cases }, limits, run) {
    if (!Array.isArray(cases) || !cases.length) throw goldenError("there is no golden answer, so that nothing shows that texts are read as they should be");
    for (const { text, ids, types } of cases) this._sameTokens(text, ids, types);
    let [worst, same, answered] = [1, 0, 0];
    for (const { text, answer: expected } of cases.filter(({ answer }) => answer !== null)) {
      const found = await this.answer(text, run);
      const similarity = similar(expected, found);
      if (!(similarity >= limits.cosine)) {
        throw goldenError(`the answer to the golden text ${shortly(text)} has cosine ${similarity.toFixed(6)} to the recorded one, expected at least ${limits.cosine}`);
      }
      worst = Math.min(worst, similarity);
      answered += 1;
      if (this.kind === "labels" && sameFirst(expected, found)) same += 1;
    }
    if (this.kind === "labels" && typeof limits.top1 === "number" && !(same / answered >= limits.top1)) {
      throw goldenError(`the answers to the golden texts have top1 ${(same / answered).toFixed(4)} to the recorded ones, expected at least ${limits.top1}`);
    }
    return worst;
  }

  _sameTokens(text, ids, types) {
    let row;
    try {
      row = this.row(text);
    } catch (error) {
      throw goldenError(`the golden text ${shortly(text)} is refused: ${error.message}`);
    }
    if (row.ids.join() === ids.join() && row.types.join() === types.join()) return;
    const place = Math.max(0, ids.findIndex((id, index) => id !== row.ids[index]));
    throw goldenError(
      `the golden text ${shortly(text)} becomes other token ids than the model's own tokenizer gave: expected ` +
        `[${ids.slice(place, place + 4).join(", ")}] at token ${place}, found [${row.ids.slice(place, place + 4).join(", ")}]`,
    );
  }

  _shaped(output, row) {
    const shape = output.shape.slice(1);
    const values = Array.from(numbersOf(output).slice(0, sizeOf(shape)));
    return FORMS[this.kind](values, shape, this, row);
  }
}

/** Cosine similarity of two answers: of classes in the order of their labels, of a single score x as (x, 1). */
function similar(expected, found) {
  const [left, right] = [numbers(expected), numbers(found)];
  if (left.labels !== right.labels || left.values.length !== right.values.length) return -1;
  let [product, first, second] = [0, 0, 0];
  for (const [index, value] of left.values.entries()) {
    const other = right.values[index];
    product += value * other;
    first += value * value;
    second += other * other;
  }
  if (!Number.isFinite(product)) return -1;
  if (first * second === 0) return first === second ? 1 : -1;
  return Math.min(1, product / Math.sqrt(first * second));
}

function numbers(answer) {
  if (typeof answer === "number") return { labels: "", values: [answer, 1] };
  if (!answer.length || typeof answer[0] !== "object" || Array.isArray(answer[0])) return { labels: "", values: answer.flat() };
  const sorted = [...answer].sort((left, right) => (left.label < right.label ? -1 : 1));
  const scores = sorted.map(({ score }) => score);
  return { labels: sorted.map(({ label }) => label).join("\n"), values: scores.length === 1 ? [...scores, 1] : scores };
}

/** Whether the expected first label is the found one, or has a score that is no further from it than TIE. */
function sameFirst(expected, found) {
  const first = found.find(({ label }) => label === expected[0].label);
  return first !== undefined && first.score >= found[0].score - TIE;
}

function kindOf(entry) {
  if (entry === null) return "null";
  return Array.isArray(entry) ? "a list" : `a ${typeof entry}`;
}

function shortly(request) {
  const text = typeof request === "string" ? request : JSON.stringify(request);
  return JSON.stringify(text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text);
}
