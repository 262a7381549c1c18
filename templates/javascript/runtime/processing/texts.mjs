// Texts to token ids, cut and padded as the model's own tokenizer does it.

import { Tokenizer } from "../tokenizers/tokenizers.min.mjs";
import { holderOf } from "../arrays.mjs";
import { formatError, inputError, oneLine } from "../errors.mjs";
import { normalizer, words } from "./bert.mjs";

const [IDS, MASK, TYPES] = ["input_ids", "attention_mask", "token_type_ids"];
const SHOWN = 60;
const SIDES = ["left", "right"];

/** Makes a model's inputs of texts: `settings` is `text` of processing.json, `tokenizer` what tokenizer.json holds. */
export class Texts {
  constructor(settings, tokenizer, { inputs, axes }) {
    const names = inputs.map((input) => input.name);
    const unknown = names.find((name) => ![IDS, MASK, TYPES].includes(name));
    if (unknown) throw formatError(`the model takes '${unknown}', which no text gives`);
    if (!names.includes(IDS) || inputs.some((input) => input.shape.length !== 2)) throw formatError(`the model takes no ${IDS} of two dimensions`);
    this._inputs = inputs;
    [this._rows, this._width] = inputs.find((input) => input.name === IDS).shape.map((size) => bounds(size, axes));
    this._settings = settings;
    this.pairs = Boolean(settings.pairs);
    this._left = settings.padding.side === "left";
    this._fill = { [IDS]: settings.padding.token, [TYPES]: settings.padding.type, [MASK]: 0 };
    if (settings.max_length > this._width.max) throw formatError(`max_length is ${settings.max_length}, the model takes ${this._width.max} tokens`);
    if (![...SIDES, "refuse"].includes(settings.truncation) || !SIDES.includes(settings.padding.side)) throw formatError("truncation or the side of padding is unknown");
    this._tokenizer = opened(tokenizer);
    this._typeless = tokenizer.post_processor?.type === "RobertaProcessing";
    this._special = [null, []].map((pair) => this._framed([], pair).tokens.length);
  }

  /**
   * The tokens of a text, or of a pair of texts: `{ ids, types }`, special tokens included, without padding.
   *
   * @param text any text without lone surrogates.
   * @param pair the second text of a pair.
   * @param prompt the name of one of the model's prompts; the default one when undefined, none when empty.
   * Throws a BundleError of the code `input` for what cannot be encoded or is too long where nothing is cut.
   */
  row(text, pair = null, prompt = undefined) {
    for (const part of pair === null ? [text] : [text, pair]) check(part);
    const first = this._tokens(this._prompt(prompt) + text, text);
    const second = pair === null ? null : this._tokens(pair, pair);
    const { max_length: limit, truncation } = this._settings;
    const room = limit - this._special[second === null ? 0 : 1];
    let kept = [first.length, second?.length ?? 0];
    if (kept[0] + kept[1] > room) {
      if (truncation === "refuse") throw inputError(`a text has ${limit - room + kept[0] + kept[1]} tokens, at most ${limit} are taken: ${shortly(text)}. Send a shorter text.`);
      kept = this._kept(kept, room, second !== null, text);
    }
    const { tokens, token_type_ids: types } = this._framed(cut(first, kept[0], truncation), second && cut(second, kept[1], truncation));
    const ids = tokens.map((token) => this._id(token));
    if (ids.some((id) => id === undefined)) throw inputError(`the tokenizer has no token for a part of a text: ${shortly(text)}.`);
    return { ids, types: this._typeless || !types ? ids.map(() => 0) : types };
  }

  /** The model's inputs for some rows, padded to the longest within the bounds of the axes; rows are repeated where more are needed. */
  inputs(rows) {
    const width = fitting(Math.max(1, ...rows.map((row) => row.ids.length)), this._width);
    const count = fitting(rows.length, this._rows);
    const made = {};
    for (const { name, dtype } of this._inputs) {
      const holder = holderOf(dtype);
      const number = holder === BigInt64Array ? BigInt : Number;
      const data = new holder(count * width).fill(number(this._fill[name]));
      for (let place = 0; place < count; place++) {
        const row = rows[Math.min(place, rows.length - 1)];
        const start = place * width + (this._left ? width - row.ids.length : 0);
        row.ids.forEach((id, index) => (data[start + index] = number(name === IDS ? id : name === TYPES ? row.types[index] : 1)));
      }
      made[name] = { dtype, shape: [count, width], data };
    }
    return made;
  }

  /** Where the tokens of a row stand in a padded row: the first, and the one behind the last. */
  place(row, width) {
    return this._left ? [width - row.ids.length, width] : [0, row.ids.length];
  }

  _tokens(given, text) {
    try {
      return given === "" ? [] : this._tokenizer.encode_text(given);
    } catch (error) {
      throw inputError(`the tokenizer makes nothing of a text: ${oneLine(error)}: ${shortly(text)}.`);
    }
  }

  _framed(first, second) {
    const { post_processor: process } = this._tokenizer;
    return process ? process(first, second, true) : { tokens: [...first, ...(second ?? [])] };
  }

  _id(token) {
    const { added_tokens_map: added, model } = this._tokenizer;
    return added.get(token)?.id ?? model.tokens_to_ids.get(token) ?? model.unk_token_id;
  }

  _prompt(name) {
    if (name === undefined || name === null) return this._settings.prompt ?? "";
    if (name === "") return "";
    const prompts = this._settings.prompts ?? {};
    if (!Object.hasOwn(prompts, name)) {
      throw inputError(`there is no prompt '${name}'. The model's prompts: ${Object.keys(prompts).map((known) => `'${known}'`).join(", ") || "none"}.`);
    }
    return prompts[name];
  }

  /** How many tokens of each text are kept. */
  _kept([first, second], room, isPair, text) {
    if (!isPair) return [room, 0];
    const strategy = this._settings.strategy ?? "longest_first";
    if (strategy !== "longest_first") {
      const [one, other] = strategy === "only_first" ? [0, second] : [1, first];
      const left = room - other;
      if (left <= 0) throw inputError(`a text leaves no room for the other: ${shortly(text)}. Send shorter texts.`);
      return one === 0 ? [left, other] : [other, left];
    }
    let [short, long] = first < second ? [first, second] : [second, first];
    long = short > room ? short : Math.max(short, room - short);
    if (short + long > room) {
      short = Math.floor(room / 2);
      long = short + (room % 2);
    }
    return first > second ? [long, short] : [short, long];
  }
}

function opened(document) {
  let tokenizer;
  try {
    tokenizer = new Tokenizer(document, {});
  } catch (error) {
    throw formatError(`tokenizer.json is not a tokenizer that this loader reads: ${oneLine(error)}`);
  }
  // The library follows the browser's Unicode; these follow that of the model's own tokenizer.
  if (document.normalizer?.type === "BertNormalizer") tokenizer.normalizer = normalizer(document.normalizer);
  if (document.pre_tokenizer?.type === "BertPreTokenizer") tokenizer.pre_tokenizer = words;
  return tokenizer;
}

function cut(tokens, count, side) {
  return side === "left" ? tokens.slice(tokens.length - Math.min(count, tokens.length)) : tokens.slice(0, count);
}

function bounds(size, axes) {
  if (typeof size === "number") return { min: size, max: size, step: 1 };
  const axis = axes.find(({ name }) => name === size);
  return { min: axis?.min ?? 1, max: axis?.max ?? Infinity, step: axis?.multiple_of ?? 1 };
}

function fitting(size, { min, step }) {
  return Math.ceil(Math.max(size, min) / step) * step;
}

function check(text) {
  if (typeof text !== "string") throw inputError(`a text is a ${typeof text}. Expected a string.`);
  if (!text.isWellFormed()) throw inputError(`a text holds a lone surrogate, which is no text: ${shortly(text)}. Send text that can be written as UTF-8.`);
}

function shortly(text) {
  const plain = JSON.stringify(text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text);
  return plain.replace(/[^\x20-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
}
