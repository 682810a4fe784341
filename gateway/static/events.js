/**
 * A stream of events, whose being open is the request to paint.
 *
 * Read with fetch and not EventSource, which hides why it was refused and reconnects by itself.
 */

import { Problem, problemFrom, problemOf } from "./canvases.js";

/** @typedef {{x: number, y: number, z: number}} Tile */
/** @typedef {object} Listener
 *  @property {() => void} opened the gateway has taken the request
 *  @property {(tile: Tile) => void} tile a tile is there
 *  @property {() => void} done all are there
 *  @property {(problem: Problem) => void} problem refused, or broken off; called at most once, last
 */

/** The gateway sends at least a comment every 15 s; a stream silent for longer is dead. */
const SILENCE_MS = 60_000;

const BLOCK_END = /\r?\n\r?\n/;

/**
 * @param {string} block the lines of one event
 * @returns {{name: string, data: any}|null} null for a comment
 */
function parseEvent(block) {
  const fields = { event: "message", data: "" };
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^(\w+): ?(.*)$/.exec(line) ?? [];
    if (field in fields) fields[field] = value;
  }
  return fields.data ? { name: fields.event, data: JSON.parse(fields.data) } : null;
}

/**
 * Listens until all is there, something breaks, or the returned function is called.
 * @param {string} url @param {Listener} listener
 * @returns {() => void} stops listening; nothing is called afterwards
 */
export function listen(url, listener) {
  const abort = new AbortController();
  read(url, listener, abort.signal).catch((error) => {
    if (abort.signal.aborted) return;
    abort.abort();
    listener.problem(error instanceof Problem ? error : new Problem(0, String(error)));
  });
  return () => abort.abort();
}

/**
 * @param {string} url @param {Listener} listener @param {AbortSignal} signal
 * @throws {Problem} refused or broken off
 */
async function read(url, listener, signal) {
  const response = await fetch(url, { signal, cache: "no-store" });
  if (!response.ok) throw await problemOf(response);
  listener.opened();

  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (true) {
    const { value, done } = await orSilence(reader.read());
    if (done) throw new Problem(0, "The stream of events broke off.");
    const blocks = (text + value).split(BLOCK_END);
    text = blocks.pop();
    for (const event of blocks.map(parseEvent)) {
      if (signal.aborted) return;
      if (event?.name === "tile") listener.tile(event.data);
      if (event?.name === "problem") throw problemFrom(event.data, 500);
      if (event?.name === "done") {
        await reader.cancel();
        if (!signal.aborted) listener.done();
        return;
      }
    }
  }
}

/**
 * @template T @param {Promise<T>} next @returns {Promise<T>}
 * @throws {Problem} after a long silence
 */
function orSilence(next) {
  let timer;
  const silence = new Promise((_, reject) => {
    timer = setTimeout(
      () => reject(new Problem(0, "The stream of events fell silent.")),
      SILENCE_MS,
    );
  });
  return Promise.race([next, silence]).finally(() => clearTimeout(timer));
}
