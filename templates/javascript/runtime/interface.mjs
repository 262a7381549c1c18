// What a model takes and gives: inputs, outputs, and the bounds of their dynamic axes.

import { holderOf, isFloat, numbersOf, sizeOf, taken, zeros } from "./arrays.mjs";
import { inputError, shown } from "./errors.mjs";

export class Interface {
  /** @param manifest manifest.json. */
  constructor(manifest) {
    this.inputs = manifest.inputs;
    this.outputs = manifest.outputs;
    this.axes = manifest.axes;
    this._bounds = Object.fromEntries(manifest.axes.map((axis) => [axis.name, axis]));
  }

  /** Throw a BundleError of the code `input` unless `inputs` holds exactly what the model takes. */
  check(inputs, nan) {
    if (inputs === null || typeof inputs !== "object") throw inputError(`inputs is a ${typeof inputs}. Expected an object of name to { dtype, shape, data }.`);
    const names = this.inputs.map((tensor) => tensor.name);
    for (const name of Object.keys(inputs)) {
      if (!names.includes(name)) throw inputError(`input '${name}' is unknown. Expected ${names.join(", ")}.`);
    }
    const sizes = new Map();
    for (const tensor of this.inputs) {
      if (!Object.hasOwn(inputs, tensor.name)) throw inputError(`input '${tensor.name}' is missing. Send ${tensor.dtype} of shape ${shown(tensor.shape)}.`);
      const array = inputs[tensor.name];
      checkType(tensor, array);
      this._checkShape(tensor, array, sizes);
      checkValues(tensor, array, nan);
    }
    for (const { name, equals } of this.axes) {
      if (!equals || ![name, ...equals.terms.map(([term]) => term)].every((known) => sizes.has(known))) continue;
      const wanted = sumOf(equals, (term) => sizes.get(term)[0]);
      if (sizes.get(name)[0] !== wanted) throw inputError(`${name} is ${sizes.get(name)[0]}. Send ${wanted}, which follows from the other sizes.`);
    }
  }

  _checkShape(tensor, { shape }, sizes) {
    const name = `input '${tensor.name}'`;
    if (shape.length !== tensor.shape.length) throw inputError(`${name} has shape ${shown(shape)}. Send ${tensor.shape.length} axes: ${shown(tensor.shape)}.`);
    for (const [index, wanted] of tensor.shape.entries()) {
      const size = shape[index];
      if (typeof wanted !== "string") {
        if (size !== wanted) throw inputError(`${name} has shape ${shown(shape)}: axis ${index} is ${size}. Send ${wanted}.`);
        continue;
      }
      const axis = this._bounds[wanted];
      const where = `${name} has shape ${shown(shape)}: axis ${index} (${wanted}) is ${size}.`;
      if (!(axis.min <= size && size <= axis.max)) throw inputError(`${where} Send ${axis.min} to ${axis.max}.`);
      if (size % (axis.multiple_of ?? 1)) throw inputError(`${where} Send a multiple of ${axis.multiple_of}.`);
      const [known, other] = sizes.get(wanted) ?? [size, tensor.name];
      sizes.set(wanted, [known, other]);
      if (known !== size) throw inputError(`${name} has ${wanted} ${size}, input '${other}' has ${wanted} ${known}. Send the same in both.`);
    }
  }

  /** Inputs of the given axis sizes (typical ones where not given): golden ones, repeated or cut to size. */
  example(sizes, golden) {
    for (const name of Object.keys(sizes)) {
      if (!Object.hasOwn(this._bounds, name)) throw inputError(`axis '${name}' is unknown. Expected ${Object.keys(this._bounds).join(", ") || "none"}.`);
    }
    const every = { ...Object.fromEntries(this.axes.map((axis) => [axis.name, axis.typical])), ...sizes };
    for (const { name, equals } of this.axes) if (equals) every[name] = sumOf(equals, (term) => every[term]);
    const made = {};
    for (const tensor of this.inputs) {
      const shape = tensor.shape.map((entry) => (typeof entry === "string" ? every[entry] : entry));
      let array = golden[tensor.name];
      if (!array || array.shape.length !== shape.length || !array.data.length) array = filled(tensor, shape);
      for (const [axis, size] of shape.entries()) array = taken(array, axis, size);
      made[tensor.name] = tensor.end === undefined || shape.length !== 2 ? array : ended(tensor, array);
    }
    return made;
  }
}

/** The size of an axis that follows from others, of which `sizeOf` gives the sizes. */
function sumOf({ terms, constant = 0 }, sizeOf) {
  return terms.reduce((sum, [term, factor]) => sum + factor * sizeOf(term), constant);
}

/** Token ids with the end token once in each row, as the last one. */
function ended(tensor, array) {
  const [low, high] = tensor.range ?? [0, 1];
  const exact = array.data instanceof BigInt64Array ? BigInt : Number;
  const [end, other] = [exact(tensor.end), exact(tensor.end === low ? high : low)];
  const width = array.shape[1];
  const data = array.data.map((value, place) => (place % width === width - 1 ? end : value === end ? other : value));
  return { ...array, data };
}

function filled(tensor, shape) {
  const [low] = tensor.range ?? (isFloat(tensor.dtype) ? [0] : [1]);
  const array = zeros(tensor.dtype, shape);
  if (tensor.dtype !== "float16") array.data.fill(array.data instanceof BigInt64Array || array.data instanceof BigUint64Array ? BigInt(Math.ceil(low)) : low);
  return array;
}

function checkType(tensor, array) {
  const name = `input '${tensor.name}'`;
  const Holder = holderOf(tensor.dtype);
  if (array === null || typeof array !== "object" || !Array.isArray(array.shape)) {
    throw inputError(`${name} is no array. Send { dtype: '${tensor.dtype}', shape, data: ${Holder.name} }.`);
  }
  if (array.dtype !== tensor.dtype) throw inputError(`${name} is ${array.dtype}, the model takes ${tensor.dtype}. Send a ${Holder.name} as ${tensor.dtype} if that keeps the values.`);
  if (!(array.data instanceof Holder)) throw inputError(`${name} has other data than a ${Holder.name}. Send { dtype: '${tensor.dtype}', shape, data: ${Holder.name} }.`);
  if (!array.shape.every((size) => Number.isSafeInteger(size) && size >= 0) || sizeOf(array.shape) !== array.data.length) {
    throw inputError(`${name} has shape ${shown(array.shape)} and ${array.data.length} values. Send as many values as the shape has.`);
  }
}

function checkValues(tensor, array, nan) {
  const name = `input '${tensor.name}'`;
  if (tensor.range && array.data.length) {
    let [least, most] = [Infinity, -Infinity];
    for (const value of numbersOf(array)) {
      least = value < least || Number.isNaN(value) ? value : least;
      most = value > most || Number.isNaN(value) ? value : most;
    }
    const [low, high] = tensor.range;
    // Written so that a NaN fails.
    if (!(low <= least && most <= high)) throw inputError(`${name} holds values from ${least} to ${most}. Send values from ${low} to ${high}.`);
  }
  if (nan?.finds(tensor.name, array)) throw inputError(`${name} holds NaN. Send numbers.`);
}

/** Finds NaN in what a model is given and gives, but where its golden cases have NaN, too. */
export class NanWatch {
  constructor() {
    this.on = false;
    this.known = new Set();
  }

  finds(name, array) {
    return this.on && !this.known.has(name) && hasNan(array);
  }
}

export function hasNan({ dtype, data }) {
  if (!isFloat(dtype)) return false;
  if (dtype === "float16") return data.some((bits) => (bits & 0x7c00) === 0x7c00 && (bits & 0x3ff) !== 0);
  let sum = 0;
  for (const value of data) sum += value;
  return Number.isNaN(sum) && data.some(Number.isNaN);
}
