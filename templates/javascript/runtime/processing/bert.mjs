// BertNormalizer and BertPreTokenizer as tokenizers has them, character by character.

import { isBlank, isCased, isComposed, isControl, isIdeograph, isMark, isPunctuation, isSpace } from "./characters.mjs";

/** The normalizer of tokenizer.json, a BertNormalizer, as a function of a text. */
export function normalizer({ clean_text: clean, handle_chinese_chars: ideographs, strip_accents: accents, lowercase }) {
  const strip = accents ?? lowercase;
  return (text) => {
    const made = [];
    for (const character of text) {
      const point = character.codePointAt(0);
      if (clean && isControl(point)) continue;
      if (clean && isBlank(point)) made.push(" ");
      else if (ideographs && isIdeograph(point)) made.push(" ", ...apart(character, point, strip), " ");
      else made.push(...apart(character, point, strip));
    }
    const kept = strip ? made.filter((character) => !isMark(character.codePointAt(0))) : made;
    return (lowercase ? kept.map((character) => (isCased(character.codePointAt(0)) ? character.toLowerCase() : character)) : kept).join("");
  };
}

/** Words and punctuation of a text. */
export function words(text) {
  const found = [];
  let word = "";
  const end = () => {
    if (word) found.push(word);
    word = "";
  };
  for (const character of text) {
    const point = character.codePointAt(0);
    if (isSpace(point)) end();
    else if (isPunctuation(point)) {
      end();
      found.push(character);
    } else word += character;
  }
  end();
  return found;
}

function apart(character, point, strip) {
  return strip && isComposed(point) ? character.normalize("NFD") : character;
}
