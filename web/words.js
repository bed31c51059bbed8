/** What the weights of a review's words say, as plain data: which to mark, how strongly, and the sums. */

const SHOWN_PER_SIDE = 6;
const LONGEST_SHOWN = 32;
// Shares of the heaviest word's weight from which a word is marked faintly, clearly, strongly.
const LEVELS = [0.12, 0.35, 0.7];

/**
 * Cut a review into runs: {text, side, level}; side is "for", "against" or "" and level 0 to 3.
 * Neighbours that are not marked are joined, so a long review stays few nodes. The texts still spell the review.
 */
export function markWords(words) {
  const heaviest = words.reduce((most, word) => Math.max(most, Math.abs(word.weight)), 0);
  const runs = [];
  for (const { text, weight } of words) {
    const level = heaviest > 0 ? LEVELS.filter((share) => Math.abs(weight) / heaviest >= share).length : 0;
    const last = runs.at(-1);
    if (level === 0 && last?.level === 0) last.text += text;
    else runs.push({ text, level, side: level === 0 ? "" : sideOf(weight) });
  }
  return runs;
}

/**
 * Add up the words of each side, whatever their case.
 * Returns {for, against, sumFor, sumAgainst}: lists of {text, weight, count}, heaviest first, cut to the few that matter;
 * the sums are over every word.
 */
export function tallyWords(words) {
  const totals = new Map();
  for (const { text, weight } of words) {
    const key = text.trim().toLowerCase();
    if (key === "" || weight === 0) continue;
    const { weight: sum, count } = totals.get(key) ?? { weight: 0, count: 0 };
    totals.set(key, { weight: sum + weight, count: count + 1 });
  }
  const ranked = [...totals]
    .map(([text, total]) => ({ text: shorten(text, LONGEST_SHOWN), ...total }))
    .sort((a, b) => Math.abs(b.weight) - Math.abs(a.weight));
  const faintest = LEVELS[0] * Math.abs(ranked[0]?.weight ?? 0);
  const ofSide = (side) => ranked.filter(({ weight }) => sideOf(weight) === side && Math.abs(weight) >= faintest && weight !== 0).slice(0, SHOWN_PER_SIDE);
  return { for: ofSide("for"), against: ofSide("against"), sumFor: sumOf(words, "for"), sumAgainst: sumOf(words, "against") };
}

const sideOf = (weight) => (weight > 0 ? "for" : "against");

const sumOf = (words, side) =>
  words.reduce((sum, { weight }) => (weight !== 0 && sideOf(weight) === side ? sum + weight : sum), 0);

/** Cut a text to *longest* characters, never through the middle of one. */
export function shorten(text, longest) {
  const characters = Array.from(text.slice(0, 2 * longest + 2)); // a character is at most two UTF-16 units
  return characters.length > longest ? `${characters.slice(0, longest).join("")}…` : text;
}
