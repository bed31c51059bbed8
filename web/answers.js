/**
 * Asking the model, and believing nothing that is not plainly an answer.
 *
 * `ask` either returns a checked Answer or throws a NoAnswer that says, in words for a reader, why there is none.
 * So no caller can mistake an error for a result.
 */

/** Longer than the 30 s an API gateway waits, so that its own, better informed, refusal arrives first. */
export const TIMEOUT_MS = 35_000;

export const MAX_REVIEW_BYTES = 100_000;

const QUOTE_LIMIT = 300;

/** Why there is no answer: `title` in a few words, `message` in a sentence, `detail` for whoever repairs it. */
export class NoAnswer extends Error {
  constructor(title, message, { detail = "", canRetry = true } = {}) {
    super(message);
    this.name = "NoAnswer";
    this.title = title;
    this.detail = detail;
    this.canRetry = canRetry;
  }
}

/** Where reviews are sent: beside the page, whatever host and folder it came from. */
export const predictUrl = () => new URL("predict", location.href);

/** What is sent for one review. */
export const requestBody = (text) => JSON.stringify({ text, explain: true });

/** Length in UTF-8, the unit of the server's limit. */
export const byteLength = (text) => new TextEncoder().encode(text).length;

/**
 * Ask for the verdict on one review.
 *
 * Resolves to a frozen {label, probability, words, bias, endpoint, variant, backend, milliseconds}. `words` is null
 * unless it spells the review exactly; `endpoint`, `variant`, `backend` are "" where the reply does not say.
 * Throws NoAnswer, or `controller.signal.reason` when the caller aborts.
 */
export async function ask(text, controller) {
  refuseUnsendable(text);
  const began = performance.now();
  const reply = await exchange(predictUrl(), controller, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: requestBody(text),
  });
  return Object.freeze({ ...readAnswer(reply, text), milliseconds: performance.now() - began });
}

/** Ask what stands behind this page: {endpoint, backend}. Throws NoAnswer. */
export async function askAbout() {
  const reply = await exchange(new URL("about", location.href), new AbortController(), {});
  return readOrigin(isRecord(reply) ? reply : {});
}

function refuseUnsendable(text) {
  if (text.trim() === "") {
    throw new NoAnswer("Nothing to read yet", "Type or paste a review first; a sentence is enough.", { canRetry: false });
  }
  const bytes = byteLength(text);
  if (bytes > MAX_REVIEW_BYTES) {
    const over = (bytes - MAX_REVIEW_BYTES).toLocaleString("en");
    throw new NoAnswer("The review is too long", `It is ${over} bytes over the limit. Nothing was sent.`, { canRetry: false });
  }
  // Under the u flag this matches only surrogates that have lost their other half; no UTF-8 can carry them.
  if (/\p{Surrogate}/u.test(text)) {
    throw new NoAnswer("A character is broken", "The review holds half of an emoji or another cut-off character. Nothing was sent.", { canRetry: false });
  }
}

async function exchange(url, controller, request) {
  const late = new NoAnswer("No answer in time", `The server stayed silent for ${TIMEOUT_MS / 1000} seconds, so the page stopped waiting.`, { detail: "Timeout" });
  const timer = setTimeout(() => controller.abort(late), TIMEOUT_MS);
  try {
    const response = await fetch(url, { ...request, signal: controller.signal, cache: "no-store", redirect: "error" });
    const body = await response.text();
    if (!response.ok) throw refusal(response.status, body);
    return parse(body);
  } catch (error) {
    if (error instanceof NoAnswer || controller.signal.aborted) throw error;
    throw new NoAnswer("The server cannot be reached", "The review got no answer at all. Is the server still running, and are you online?", { detail: "Network error" });
  } finally {
    clearTimeout(timer);
  }
}

function parse(body) {
  try {
    return JSON.parse(body);
  } catch {
    throw nonsense("it is not JSON");
  }
}

const nonsense = (why) =>
  new NoAnswer("The answer makes no sense", `Something answered, but not with a verdict: ${why}.`, { detail: "Malformed answer" });

const TITLES = {
  400: "The review was refused",
  404: "Nothing answers there",
  413: "The review is too long",
  429: "Too many requests at once",
  502: "The model did not answer properly",
  503: "The model is not available",
  504: "The model took too long",
};

function refusal(status, body) {
  const { code, message } = readRefusal(body);
  const title = TITLES[status] ?? (status >= 500 ? "The server failed" : "The request was refused");
  const said = message ? `The server said: “${message}”` : "The server gave no reason.";
  return new NoAnswer(title, said, { detail: [`HTTP ${status}`, code].filter(Boolean).join(" · ") });
}

/** Ours is {"error": {code, message}}; API Gateway's own is {"message"}; anything else is not quoted. */
function readRefusal(body) {
  let reply;
  try {
    reply = JSON.parse(body);
  } catch {
    reply = null;
  }
  const said = isRecord(reply) ? (isRecord(reply.error) ? reply.error : reply) : {};
  return { code: asText(said.code).slice(0, 60), message: asText(said.message).slice(0, QUOTE_LIMIT) };
}

function readAnswer(reply, text) {
  if (!isRecord(reply)) throw nonsense("it is not an object");
  const { label, probability } = reply;
  if (label !== "positive" && label !== "negative") throw nonsense("its label is missing or unknown");
  if (typeof probability !== "number" || !(probability >= 0 && probability <= 1)) {
    throw nonsense("its probability is not a number from 0 to 1");
  }
  if (probability !== 0.5 && (probability > 0.5) !== (label === "positive")) {
    throw nonsense("its label and its probability contradict each other");
  }
  const bias = Number.isFinite(reply.bias) ? reply.bias : null;
  return { label, probability, bias, words: readWords(reply.words, text), variant: asText(reply.variant), ...readOrigin(reply) };
}

const readOrigin = (reply) => ({ endpoint: asText(reply.endpoint), backend: asText(reply.backend) });

function readWords(words, text) {
  const isWord = (word) => isRecord(word) && typeof word.text === "string" && Number.isFinite(word.weight);
  if (!Array.isArray(words) || !words.every(isWord)) return null;
  return words.map((word) => word.text).join("") === text ? words : null;
}

const isRecord = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const asText = (value) => (typeof value === "string" ? value : "");
