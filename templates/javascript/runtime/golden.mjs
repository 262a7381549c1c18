// Golden answers: how far an output may be from what PyTorch gave, by the tolerance of the manifest.

import { isFloat, numbersOf, sizeOf } from "./arrays.mjs";
import { shown } from "./errors.mjs";

const FEW = 8; // values of a sample up to which the norm of its error tells little

/**
 * Compare one output with what PyTorch gave: [{ max_abs, cosine }, what is wrong or null].
 *
 * `mask` [batch, sequence] counts where the output's first two dimensions are the mask's.
 */
export function compare(expected, observed, tolerance, mask = null) {
  const none = { max_abs: 0, cosine: 1 };
  if (shown(observed.shape) !== shown(expected.shape)) return [none, `shape is ${shown(observed.shape)}, expected ${shown(expected.shape)}`];
  const keep = kept(expected.shape, mask);
  if (keep === null) return [none, "the mask leaves nothing to compare"];
  if (!isFloat(expected.dtype) || !isFloat(observed.dtype)) return [none, labels(expected, observed, tolerance, keep)];
  const [x, y] = [numbersOf(expected), numbersOf(observed)];
  let [odd, most, at] = [0, 0, 0];
  for (let index = 0; index < x.length; index++) {
    if (!keep(index)) x[index] = y[index] = 0;
    const finite = Number.isFinite(x[index]);
    if (finite ? !Number.isFinite(y[index]) : !Object.is(x[index], y[index])) odd++;
    if (!finite) x[index] = y[index] = 0;
    const difference = Math.abs(x[index] - y[index]);
    if (difference > most) [most, at] = [difference, index];
  }
  if (odd) return [none, `${odd} of ${x.length} values are NaN or infinite in one and not so in the other`];
  const rows = expected.shape.length ? expected.shape[0] : 1;
  const values = rows ? x.length / rows : 0;
  const [cosine, relative] = worst(x, y, rows, values);
  const seen = { max_abs: most, cosine };
  const { max_abs: allowed = null, cosine: least = null, relative_error: far = null } = tolerance;
  if (allowed === null && least === null) throw new Error("golden tolerance has neither max_abs nor cosine");
  if (allowed !== null && !(most <= allowed)) {
    return [seen, `max_abs is ${short(most)}, allowed ${short(allowed)} (at value ${at}: expected ${short(x[at])}, found ${short(y[at])})`];
  }
  if (tolerance.is_constant) return [seen, null]; // the direction of a constant is that of any other
  if (least !== null && (values > 1 || allowed === null) && !(cosine >= least)) {
    return [seen, `the worst sample's cosine is ${cosine.toFixed(6)}, allowed ${least.toFixed(6)}`];
  }
  if (far !== null && values > FEW && !(relative <= far)) {
    return [seen, `the worst sample's relative error is ${relative.toFixed(6)}, allowed ${far.toFixed(6)}`];
  }
  return [seen, null];
}

const short = (value) => String(Number(value.toPrecision(4)));

/** Whether a value counts, by its place; null where none does. */
function kept(shape, mask) {
  if (!mask || mask.shape.length !== 2 || shape.length < 2 || mask.shape[0] !== shape[0] || mask.shape[1] !== shape[1]) return () => true;
  const flags = Array.from(mask.data, Boolean);
  const inner = sizeOf(shape.slice(2));
  return flags.some(Boolean) ? (index) => flags[Math.floor(index / inner)] : null;
}

function labels(expected, observed, tolerance, keep) {
  if (isFloat(expected.dtype) !== isFloat(observed.dtype)) return `dtype is ${observed.dtype}, expected ${expected.dtype}`;
  let [wrong, size] = [0, 0];
  for (let index = 0; index < expected.data.length; index++) {
    if (!keep(index)) continue;
    size++;
    if (BigInt(expected.data[index]) !== BigInt(observed.data[index])) wrong++;
  }
  const least = tolerance.top1_agreement ?? null;
  if (!wrong || (least !== null && (size - wrong) / size >= least)) return null;
  return `${wrong} of ${size} values differ, expected ${least === null ? "all equal" : `${(least * 100).toFixed(2)}% equal`}`;
}

/** The least cosine and the greatest relative error of any row. */
function worst(x, y, rows, values) {
  let [cosine, relative] = [1, 0];
  for (let row = 0; row < rows; row++) {
    let [topX, topY] = [0, 0];
    for (let index = row * values; index < (row + 1) * values; index++) {
      topX = Math.max(topX, Math.abs(x[index]));
      topY = Math.max(topY, Math.abs(y[index]));
    }
    // Scaled so that squares of large or tiny values neither overflow nor vanish.
    const [scaleX, scaleY] = [topX || 1, topY || 1];
    let [xx, yy, xy, same, error] = [0, 0, 0, true, 0];
    for (let index = row * values; index < (row + 1) * values; index++) {
      const [a, b] = [x[index] / scaleX, y[index] / scaleY];
      xx += a * a;
      yy += b * b;
      xy += a * b;
      same &&= x[index] === y[index];
      error += ((x[index] - y[index]) / scaleX) ** 2;
    }
    const norms = Math.sqrt(xx * yy);
    cosine = Math.min(cosine, norms > 0 ? xy / norms : same ? 1 : 0);
    relative = Math.max(relative, xx > 0 ? Math.sqrt(error / xx) : error > 0 ? Infinity : 0);
  }
  return [cosine, relative];
}
