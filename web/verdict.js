/** How a probability is told: rounded once, and every word and zone taken from the rounded figure. */

/** From 40% to 60%, both included, the page takes no side. */
export const UNSURE_PERCENT = { from: 40, to: 60 };

/**
 * Read P(positive) as {zone, title, percent, chance}: zone "negative", "unsure" or "positive", its title,
 * the percentage to one decimal as a number and as text.
 */
export function judge(probability) {
  const percent = Math.round(probability * 1000) / 10;
  const zone = percent < UNSURE_PERCENT.from ? "negative" : percent > UNSURE_PERCENT.to ? "positive" : "unsure";
  const title = { negative: "Negative", unsure: "Unsure", positive: "Positive" }[zone];
  return { zone, title, percent, chance: chanceOf(probability, percent) };
}

// Rounding must not turn "almost certain" into "certain".
function chanceOf(probability, percent) {
  if (percent === 100 && probability < 1) return "over 99.9%";
  if (percent === 0 && probability > 0) return "under 0.1%";
  return `${percent.toFixed(1)}%`;
}
