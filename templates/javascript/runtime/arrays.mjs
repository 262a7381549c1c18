// Arrays by name, and the .npz files in which they travel: zip archives of numpy's .npy files.

import { formatError } from "./errors.mjs";

/** Types of the manifest: numpy's letters for each, and the typed array that holds its values. */
const TYPES = {
  float64: ["f8", Float64Array],
  float32: ["f4", Float32Array],
  float16: ["f2", Uint16Array],
  int64: ["i8", BigInt64Array],
  int32: ["i4", Int32Array],
  int16: ["i2", Int16Array],
  int8: ["i1", Int8Array],
  uint64: ["u8", BigUint64Array],
  uint32: ["u4", Uint32Array],
  uint16: ["u2", Uint16Array],
  uint8: ["u1", Uint8Array],
  bool: ["b1", Uint8Array],
};
const BY_LETTERS = Object.fromEntries(Object.entries(TYPES).map(([dtype, [letters]]) => [letters, dtype]));
const MOST_UNPACKED = 2 ** 30;

export const DTYPES = Object.keys(TYPES);
export const isFloat = (dtype) => dtype.startsWith("float");
export const holderOf = (dtype) => TYPES[dtype][1];
export const sizeOf = (shape) => shape.reduce((product, size) => product * size, 1);

/** An array of zeros. */
export function zeros(dtype, shape) {
  return { dtype, shape: [...shape], data: new (holderOf(dtype))(sizeOf(shape)) };
}

/** The value of a float16, whose bits are those of a number of 16 bits. */
export function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? (1 + fraction / 1024) * 2 ** (exponent - 15) : fraction * 2 ** -24);
}

/** All values as numbers; integers of 64 bits may lose their last digits. */
export function numbersOf({ dtype, data }) {
  if (dtype === "float16") return Float64Array.from(data, fromHalf);
  return data instanceof BigInt64Array || data instanceof BigUint64Array ? Float64Array.from(data, Number) : Float64Array.from(data);
}

/** Entries of an array along one axis, repeated or cut to a size. */
export function taken(array, axis, size) {
  const shape = array.shape.map((length, index) => (index === axis ? size : length));
  const inner = sizeOf(array.shape.slice(axis + 1));
  const outer = sizeOf(array.shape.slice(0, axis));
  const length = array.shape[axis];
  const made = zeros(array.dtype, shape);
  for (let row = 0; row < outer; row++) {
    for (let place = 0; place < size; place++) {
      const from = (row * length + (place % Math.max(1, length))) * inner;
      made.data.set(array.data.subarray(from, from + inner), (row * size + place) * inner);
    }
  }
  return made;
}

/**
 * The arrays of an .npz file by name.
 *
 * Throws a BundleError of the code `format` for a file that is none, a damaged one, or one of other types.
 */
export async function readNpz(bytes, name) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  try {
    const arrays = {};
    let unpacked = 0;
    for (const member of members(view)) {
      if (!member.name.endsWith(".npy")) throw new Error(`its member ${member.name} is no array`);
      let content = bytes.subarray(member.start, member.start + member.packed);
      if (member.method === 8) {
        unpacked += member.size;
        if (unpacked > MOST_UNPACKED) throw new Error(`compressed arrays unpack to more than ${MOST_UNPACKED} bytes`);
        content = await inflated(content);
      }
      if (content.length !== member.size) throw new Error(`${member.name} has two lengths`);
      arrays[member.name.slice(0, -4)] = readNpy(content, member.name);
    }
    return arrays;
  } catch (error) {
    throw formatError(`${name} cannot be read as arrays: ${error.message}. Get the bundle again.`);
  }
}

function* members(view) {
  let end = view.byteLength - 22;
  while (end >= 0 && view.getUint32(end, true) !== 0x06054b50) end--;
  if (end < 0) throw new Error("it is no .npz file");
  let place = view.getUint32(end + 16, true);
  for (let left = view.getUint16(end + 10, true); left > 0; left--) {
    if (view.getUint32(place, true) !== 0x02014b50) throw new Error("its directory is damaged");
    const [nameLength, extraLength, commentLength] = [28, 30, 32].map((at) => view.getUint16(place + at, true));
    const method = view.getUint16(place + 10, true);
    if (method !== 0 && method !== 8) throw new Error(`a member has the method ${method}`);
    let packed = view.getUint32(place + 20, true);
    let size = view.getUint32(place + 24, true);
    const local = view.getUint32(place + 42, true);
    const text = new Uint8Array(view.buffer, view.byteOffset + place + 46, nameLength);
    [size, packed] = long(view, place + 46 + nameLength, extraLength, size, packed);
    const start = local + 30 + view.getUint16(local + 26, true) + view.getUint16(local + 28, true);
    if (start + packed > view.byteLength) throw new Error("a member reaches beyond its end");
    yield { name: new TextDecoder().decode(text), method, packed, size, start };
    place += 46 + nameLength + extraLength + commentLength;
  }
}

/** Sizes of a member whose directory entry says them in a field for 64 bits. */
function long(view, place, length, size, packed) {
  const end = place + length;
  while (place + 4 <= end) {
    const [kind, bytes] = [view.getUint16(place, true), view.getUint16(place + 2, true)];
    if (kind === 1) {
      let at = place + 4;
      const next = () => Number(view.getBigUint64((at += 8) - 8, true));
      if (size === 0xffffffff) size = next();
      if (packed === 0xffffffff) packed = next();
    }
    place += 4 + bytes;
  }
  return [size, packed];
}

async function inflated(content) {
  const stream = new Blob([content]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function readNpy(content, name) {
  const view = new DataView(content.buffer, content.byteOffset, content.byteLength);
  if (content.length < 10 || view.getUint32(0) !== 0x934e554d || view.getUint16(4) !== 0x5059) throw new Error(`${name} does not begin as an array does`);
  const wide = view.getUint8(6) > 1;
  const length = wide ? view.getUint32(8, true) : view.getUint16(8, true);
  const start = (wide ? 12 : 10) + length;
  const header = new TextDecoder("latin1").decode(content.subarray(start - length, start));
  const found = /'descr':\s*'([<|=])(\w\d)',\s*'fortran_order':\s*(True|False),\s*'shape':\s*\(([\d,\s]*)\)/.exec(header);
  const dtype = found && BY_LETTERS[found[2]];
  if (!dtype || found[3] === "True") throw new Error(`${name} has the header ${header.trim().slice(0, 100)}`);
  const shape = found[4].split(",").filter((entry) => entry.trim()).map(Number);
  const Holder = holderOf(dtype);
  if (start + sizeOf(shape) * Holder.BYTES_PER_ELEMENT !== content.length) throw new Error(`${name} is not of the size that its header says`);
  // A copy: values of more than one byte must begin at a multiple of their size.
  return { dtype, shape, data: new Holder(content.slice(start).buffer) };
}

/** The bytes of an .npz file, without compression. */
export function writeNpz(arrays) {
  const parts = [];
  const directory = [];
  let place = 0;
  for (const [name, array] of Object.entries(arrays)) {
    const content = npy(array);
    const text = new TextEncoder().encode(`${name}.npy`);
    const entry = new DataView(new ArrayBuffer(26));
    entry.setUint16(0, 20, true);
    entry.setUint16(2, 0x0800, true);
    entry.setUint16(8, 33, true); // 1980-01-01, the first day that archives know
    entry.setUint32(10, crc32(content), true);
    entry.setUint32(14, content.length, true);
    entry.setUint32(18, content.length, true);
    entry.setUint16(22, text.length, true);
    const common = new Uint8Array(entry.buffer);
    const local = joined([Uint8Array.of(0x50, 0x4b, 3, 4), common, text, content]);
    const tail = new DataView(new ArrayBuffer(14));
    tail.setUint32(10, place, true);
    directory.push(joined([Uint8Array.of(0x50, 0x4b, 1, 2, 20, 0), common, new Uint8Array(tail.buffer), text]));
    parts.push(local);
    place += local.length;
  }
  const entries = joined(directory);
  const end = new DataView(new ArrayBuffer(22));
  end.setUint32(0, 0x06054b50, true);
  end.setUint16(8, directory.length, true);
  end.setUint16(10, directory.length, true);
  end.setUint32(12, entries.length, true);
  end.setUint32(16, place, true);
  return joined([...parts, entries, new Uint8Array(end.buffer)]);
}

function npy({ dtype, shape, data }) {
  const letters = TYPES[dtype][0];
  const order = letters.endsWith("1") ? "|" : "<";
  const sizes = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '${order}${letters}', 'fortran_order': False, 'shape': (${sizes}), }`;
  const padded = text.padEnd(Math.ceil((text.length + 11) / 64) * 64 - 11) + "\n";
  const start = Uint8Array.of(0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59, 1, 0, padded.length & 255, padded.length >> 8);
  return joined([start, new TextEncoder().encode(padded), new Uint8Array(data.buffer, data.byteOffset, data.byteLength)]);
}

function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let place = 0;
  for (const part of parts) {
    whole.set(part, place);
    place += part.length;
  }
  return whole;
}

const CRC = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  return value;
});

function crc32(content) {
  let value = 0xffffffff;
  for (const byte of content) value = CRC[(value ^ byte) & 255] ^ (value >>> 8);
  return (value ^ 0xffffffff) >>> 0;
}
