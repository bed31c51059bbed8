/** The page: one question, one pane that shows its state, a short memory. All text goes in as text nodes. */

import { ask, askAbout, byteLength, MAX_REVIEW_BYTES, NoAnswer, predictUrl, requestBody } from "./answers.js";
import { curlCommand } from "./curl.js";
import { EXAMPLES } from "./examples.js";
import { ReviewHistory } from "./history.js";
import { judge } from "./verdict.js";
import { markWords, shorten, tallyWords } from "./words.js";

const SLOW_MS = 5_000;
const COPIED_MS = 2_500;
const EXCERPT_CHARACTERS = 120;

const byId = (id) => document.getElementById(id);
const review = byId("review");
const send = byId("send");
const reviewHistory = ReviewHistory.open();

/** Make an element; strings among the children become text nodes, whatever they hold. */
function el(tag, attributes, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

// ---------------------------------------------------------------- the pane

/** Replace all the pane shows; what was there before is gone, not hidden. `news` is what a screen reader says. */
function show(state, news, ...children) {
  byId("mirror").dataset.state = state;
  byId("mirror").setAttribute("aria-busy", String(state === "loading"));
  byId("glass").replaceChildren(...children);
  byId("news").textContent = news;
}

function showIdle() {
  show("idle", "", el("p", { class: "verdict faint" }, "No verdict yet"), el("p", { class: "meaning" }, "It appears here once you send a review."), blankScale());
}

function showLoading() {
  const note = el("p", { class: "meaning" }, "The model is weighing its words.");
  show("loading", "Reading the review.", el("p", { class: "verdict faint" }, "Reading…"), note, blankScale());
  return note;
}

function showError(error) {
  const content = el("div", { class: error.canRetry ? "failure" : "failure gentle", role: "alert", id: "failure" },
    el("p", { class: "verdict" }, error.title),
    el("p", { class: "meaning" }, error.message));
  if (error.canRetry) content.append(el("p", { class: "meaning" }, "There is no verdict for this review."));
  if (error.detail) content.append(el("p", { class: "detail" }, error.detail));
  const parts = [content];
  if (error.canRetry) {
    const again = el("button", { class: "quiet", type: "button", id: "again" }, "Try again");
    again.addEventListener("click", submit);
    parts.push(again);
  }
  show("error", "", ...parts);
}

function showAnswer(answer) {
  const verdict = judge(answer.probability);
  const tally = answer.words && tallyWords(answer.words);
  const parts = [
    el("p", { class: `verdict ${verdict.zone}`, id: "verdict" }, verdict.title),
    el("p", { class: "meaning" }, "Chance that it is positive: ", el("strong", {}, verdict.chance)),
    scale(answer.probability, verdict),
  ];
  if (verdict.zone === "unsure") parts.push(reasonToDoubt(answer, tally));
  parts.push(...(answer.words ? explanation(answer, tally) : [el("p", { class: "note" }, "The answer brought no word weights that fit this review, so no words are marked.")]));
  show(verdict.zone, `${verdict.title}. Chance that it is positive: ${verdict.chance}.`, ...parts);
}

// ---------------------------------------------------------------- the scale

function scale(probability, { zone, percent, chance }) {
  const meter = el("div", {
    class: `scale ${zone}`, role: "meter", "aria-label": "Chance that the review is positive",
    "aria-valuemin": "0", "aria-valuemax": "100", "aria-valuenow": String(percent), "aria-valuetext": `${chance}, ${zone}`,
  }, track(...["fill", "marker"].map((part) => el("div", { class: part })), el("span", { class: "flag" }, chance)), ...zoneNames());
  meter.style.setProperty("--at", `${probability * 100}%`);
  return meter;
}

const blankScale = () => el("div", { class: "scale blank", "aria-hidden": "true" }, track(), ...zoneNames());

const track = (...inside) => el("div", { class: "track" }, ...["negative", "unsure", "positive"].map((zone) => el("div", { class: `zone ${zone}` })), ...inside);

const zoneNames = () => [
  el("div", { class: "ticks" }, ...[0, 40, 60, 100].map((tick) => el("span", { class: `tick at-${tick}` }, `${tick}%`))),
  el("div", { class: "zone-names" }, el("span", {}, "Negative"), el("span", {}, "Unsure"), el("span", {}, "Positive")),
];

// ---------------------------------------------------------------- the words

const signed = (weight) => `${weight < 0 ? "−" : "+"}${Math.abs(weight).toFixed(2)}`;

function reasonToDoubt({ label }, tally) {
  const sums = tally ? ` Words for positive add up to ${signed(tally.sumFor)}, words against to ${signed(tally.sumAgainst)}: too close to call.` : "";
  return el("p", { class: "note", id: "doubt" },
    el("strong", {}, `It leans ${label}, but barely.`),
    ` Between 40% and 60% a verdict is wrong almost as often as right, so the page takes no side.${sums}`);
}

function explanation({ words, bias }, tally) {
  const parts = [
    el("h3", { id: "reading-title" }, "What it read"),
    el("div", { class: "reading", id: "reading", role: "region", "aria-labelledby": "reading-title", tabindex: "0", dir: "auto" }, ...markWords(words).map(markedRun)),
    el("p", { class: "legend" }, el("span", { class: "word for l2" }, "Straight line"), ": speaks for positive. ", el("span", { class: "word against l2" }, "Wavy line"), ": against. Heavier line, heavier word."),
    el("div", { class: "tallies" }, tallyList("for", "Spoke for positive", tally.for), tallyList("against", "Spoke against", tally.against)),
  ];
  if (bias !== null) parts.push(el("p", { class: "legend", id: "sum" }, sumUp(bias, tally)));
  return parts;
}

const sumUp = (bias, { sumFor, sumAgainst }) =>
  `Starting point ${signed(bias)}, words for ${signed(sumFor)}, words against ${signed(sumAgainst)}: together ${signed(bias + sumFor + sumAgainst)}.`;

const markedRun = ({ text, side, level }) => (level === 0 ? text : el("mark", { class: `word ${side} l${level}` }, text));

function tallyList(side, title, words) {
  const line = ({ text, weight, count }) => el("li", {},
    el("bdi", {}, text), count > 1 ? el("span", { class: "times" }, `×${count}`) : "", el("span", { class: "weight" }, signed(weight)));
  const list = words.length > 0 ? el("ul", {}, ...words.map(line)) : el("p", {}, "No word did.");
  return el("div", { class: `tally ${side}`, id: `spoke-${side}` }, el("h3", {}, title), list);
}

// ---------------------------------------------------------------- asking

let current = null; // the AbortController of the question that may still change the page
let hadFocus = false; // whether the button that is about to go away was the reader's place

async function submit() {
  const text = review.value;
  const mine = begin();
  const note = showLoading();
  const slow = setTimeout(() => { note.textContent = "Still waiting. A first question may have to wake the model."; }, SLOW_MS);
  try {
    const answer = await ask(text, mine);
    if (mine !== current) return;
    showAnswer(answer);
    showOrigin(answer);
    byId("latency").textContent = [`${Math.max(1, Math.round(answer.milliseconds))} ms`, answer.variant].filter(Boolean).join(" · ");
    remember(text, answer);
  } catch (error) {
    if (mine !== current) return;
    fail(error);
  } finally {
    clearTimeout(slow);
    if (mine === current) finish();
  }
}

/** Make this the only question: an earlier one is cancelled, and its answer can no longer appear. */
function begin() {
  current?.abort();
  current = new AbortController();
  hadFocus ||= ["send", "again"].includes(document.activeElement?.id);
  send.disabled = true;
  review.removeAttribute("aria-invalid");
  review.removeAttribute("aria-errormessage");
  byId("latency").textContent = "…";
  return current;
}

function finish() {
  current = null;
  send.disabled = false;
  // A button that is disabled or replaced loses the focus; a keyboard user should not lose the place.
  if (hadFocus && document.activeElement === document.body) send.focus();
  hadFocus = false;
  bringIntoView();
}

function fail(error) {
  const isExpected = error instanceof NoAnswer;
  if (!isExpected) console.error(error);
  showError(isExpected ? error : new NoAnswer("This page failed", "The answer could not be shown because of a fault in the page itself.", { detail: String(error) }));
  byId("latency").textContent = "–";
  if (!isExpected || error.canRetry) return;
  review.setAttribute("aria-invalid", "true");
  review.setAttribute("aria-errormessage", "failure");
}

/** The pane may lie below the form, or above the history that was asked from; show its top, without a ride. */
function bringIntoView() {
  const { top } = byId("mirror").getBoundingClientRect();
  if (top < 0 || top > window.innerHeight * 0.75) byId("mirror").scrollIntoView({ block: "start" });
}

/** Put a text in the box and ask, as the examples and the history do. */
function askFor(text) {
  review.value = text;
  showCount();
  submit();
}

// ---------------------------------------------------------------- around it

const BACKENDS = { local: "Rehearsal, on this machine", aws: "Live, on AWS" };

function showOrigin({ backend, endpoint }) {
  byId("lamp").dataset.backend = backend;
  byId("backend").textContent = (BACKENDS[backend] ?? backend) || "Not stated";
  byId("endpoint").textContent = endpoint || "Not stated";
}

async function greet() {
  try {
    const about = await askAbout();
    if (byId("endpoint").textContent === "–") showOrigin(about); // an answer may have been quicker, and knows more
  } catch {
    byId("backend").textContent = "Not reached";
  }
}

function showCount() {
  const bytes = byteLength(review.value);
  byId("counter").textContent = `${bytes.toLocaleString("en")} of ${MAX_REVIEW_BYTES.toLocaleString("en")} bytes${bytes > MAX_REVIEW_BYTES ? ": too long" : ""}`;
  byId("counter").classList.toggle("over", bytes > MAX_REVIEW_BYTES);
}

function remember(text, { label, probability }) {
  reviewHistory.add({ text, label, probability });
  showHistory();
}

function showHistory() {
  const { entries, isKept } = reviewHistory;
  const list = byId("history");
  const hadFocus = list.contains(document.activeElement);
  list.replaceChildren(...entries.map(historyItem));
  if (hadFocus) list.querySelector("button")?.focus({ preventScroll: true }); // what was chosen is the newest now
  byId("clear").hidden = entries.length === 0;
  const place = isKept ? "Kept in this browser only." : "This browser allows no storage: forgotten when the page closes.";
  byId("history-note").textContent = entries.length === 0 ? `Nothing yet. ${place}` : `${place} Choose one to ask again.`;
}

function historyItem({ text, probability }) {
  const { zone, title, chance } = judge(probability);
  const button = el("button", { type: "button", class: "past" },
    el("span", { class: "excerpt", dir: "auto" }, shorten(text.trim(), EXCERPT_CHARACTERS)), " ",
    el("span", { class: `past-verdict ${zone}` }, `${title} ${chance}`));
  button.addEventListener("click", () => askFor(text));
  return el("li", {}, button);
}

function clearHistory() {
  reviewHistory.clear();
  showHistory();
  byId("history-title").focus(); // the button that was pressed is gone
}

async function copyCurl() {
  const command = curlCommand(predictUrl().href, requestBody(review.value));
  try {
    await navigator.clipboard.writeText(command);
    byId("by-hand").hidden = true;
    byId("copied").textContent = "Copied";
    setTimeout(() => { byId("copied").textContent = ""; }, COPIED_MS);
  } catch {
    // No clipboard outside a secure context, or it was refused.
    byId("by-hand").hidden = false;
    byId("command").value = command;
    byId("command").select();
  }
}

function exampleButton([name, text]) {
  const button = el("button", { type: "button", class: "chip" }, name);
  button.addEventListener("click", () => askFor(text));
  return button;
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
review.addEventListener("input", showCount);
review.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey) || event.isComposing) return;
  event.preventDefault();
  submit();
});
byId("curl").addEventListener("click", copyCurl);
byId("clear").addEventListener("click", clearHistory);
byId("examples").replaceChildren(...EXAMPLES.map(exampleButton));
if (/Mac|iPhone|iPad/.test(navigator.platform)) byId("modifier").textContent = "⌘";

send.disabled = false;
showIdle();
showCount();
showHistory();
greet();
