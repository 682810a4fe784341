/** What is going on, in a ring around the seal and, where a ring will not do, in words. */

/** @typedef {"starting"|"painting"|"ready"|"problem"} State */

const page = document.documentElement;
const ring = document.getElementById("ring");
const words = document.getElementById("words");
const countdown = document.getElementById("countdown");
const pill = document.getElementById("status");
const live = document.getElementById("live");

/** Tiles that were painted long ago are there sooner than this, and not worth a word. */
const WORTH_A_WORD_MS = 1000;

let countdownTimer = 0;
let wordTimer = 0;

/** @param {State} state read by tests as well */
export function setState(state) {
  if (page.dataset.state === state) return;
  page.dataset.state = state;
  clearTimeout(wordTimer);
  if (state === "painting") {
    wordTimer = setTimeout(() => (live.textContent = "Painting what you see."), WORTH_A_WORD_MS);
  }
  if (state === "ready" && live.textContent) live.textContent = "Painted.";
}

/** @param {number} part of the work that is done, 0 to 1 */
export function setProgress(part) {
  // A sliver is shown from the start: something is under way.
  ring.style.setProperty("--part", String(Math.max(0.03, part)));
}

/**
 * Says something until it is unsaid.
 * @param {string} text
 * @param {number} [retry_s] seconds until the next try, counted down beside it
 */
export function say(text, retry_s) {
  unsay();
  words.textContent = text;
  live.textContent = text;
  pill.hidden = false;
  if (retry_s === undefined) return;
  const end = performance.now() + 1000 * retry_s;
  const count = () => {
    const left_s = Math.ceil((end - performance.now()) / 1000);
    countdown.textContent = left_s > 0 ? `trying again in ${left_s} s` : "trying again…";
  };
  count();
  countdownTimer = setInterval(count, 250);
}

/** Takes back what was said. */
export function unsay() {
  clearInterval(countdownTimer);
  words.textContent = countdown.textContent = "";
  pill.hidden = true;
}

/** @param {import("./canvases.js").Problem} problem @returns {string} */
export function describe(problem) {
  if (!navigator.onLine) return "You are offline";
  if (problem.status === 0) return "The painters cannot be reached";
  if (problem.status === 429) return "You asked for a lot in a short time";
  if (problem.status === 503) return "The painters are busy";
  return "Something went wrong at the painters’";
}
