/** The same request as a command for a POSIX shell. */

/** One line to paste: sends *body* as JSON to *url*, and fails visibly on an HTTP error. */
export function curlCommand(url, body) {
  return `curl -sS --fail-with-body ${quote(url)} -H 'content-type: application/json' --data-raw ${quote(visible(body))}`;
}

/** Between single quotes a POSIX shell changes nothing; the quote itself must step outside. */
const quote = (word) => `'${word.replaceAll("'", "'\\''")}'`;

/**
 * Write invisible characters as JSON escapes: what is pasted into a terminal should be what it looks like
 * (https://trojansource.codes), and a terminal may act on control characters.
 */
const visible = (json) =>
  json.replace(
    /[\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
