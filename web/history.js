/** The last reviews and their verdicts, kept in this browser only, and only as long as it allows. */

const KEY = "greenroom.history";
export const HISTORY_LIMIT = 12;

/** A short list of {text, label, probability}, newest first; each text once. Never throws: refused storage means memory. */
export class ReviewHistory {
  #storage;
  #inMemory = [];

  constructor(storage) {
    this.#storage = storage;
  }

  /** Open the browser's store, or a list in memory where that is denied. */
  static open() {
    try {
      const storage = window.localStorage;
      storage.getItem(KEY);
      return new ReviewHistory(storage);
    } catch {
      return new ReviewHistory(null);
    }
  }

  /** Whether the list will be here after the page is closed. */
  get isKept() {
    return this.#storage !== null;
  }

  get entries() {
    return this.isKept ? this.#stored() : this.#inMemory;
  }

  add(entry) {
    // Read again first: another tab may have added to the list.
    const others = this.entries.filter(({ text }) => text !== entry.text);
    this.#replace([entry, ...others].slice(0, HISTORY_LIMIT));
  }

  clear() {
    this.#replace([]);
  }

  #stored() {
    try {
      const entries = JSON.parse(this.#storage.getItem(KEY) ?? "[]");
      return Array.isArray(entries) ? entries.filter(isEntry).slice(0, HISTORY_LIMIT) : [];
    } catch {
      return [];
    }
  }

  #replace(entries) {
    this.#inMemory = entries;
    try {
      if (entries.length === 0) this.#storage?.removeItem(KEY);
      else this.#storage?.setItem(KEY, JSON.stringify(entries));
    } catch {
      this.#storage = null; // full, or withdrawn while the page was open
    }
  }
}

/** The store may hold what an older page, another program or a curious user left there. */
function isEntry(entry) {
  return (
    typeof entry === "object" && entry !== null && typeof entry.text === "string" &&
    (entry.label === "positive" || entry.label === "negative") &&
    typeof entry.probability === "number" && entry.probability >= 0 && entry.probability <= 1
  );
}
