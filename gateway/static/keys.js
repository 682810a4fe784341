/**
 * A key, where looking or painting takes one: a field to give it, and a button to forget it.
 *
 * The gateway keeps it as a cookie that no script can read; the page remembers whose it is.
 */

import { closeSession, openSession } from "./canvases.js";
import { byId } from "./elements.js";
import { describe } from "./status.js";

/** @typedef {import("./canvases.js").Problem} Problem */

const WHOSE = "handscroll key";

const form = byId("key");
const field = byId("key-field");
const error = byId("key-error");

/** @type {(() => void)[]} what waits for a key */
let waiting = [];
/** Whoever has put the field away only looks, and is not asked again for what they look at. */
let putAway = false;

/**
 * Asks for a key and waits until one is accepted, for ever if need be.
 * @param {Problem} problem that made it necessary
 * @param {"always"|"once"|"insist"} how whether it can be put away, and is asked again after that
 * @returns {Promise<void>}
 */
export function askForKey(problem, how) {
  if (how === "once" && putAway) return new Promise(() => {});
  const deed = how === "insist" ? "Looking" : "Painting";
  byId("key-label").textContent =
    problem.status === 403 ? "Your key may only look" : `${deed} takes a key`;
  byId("key-away").hidden = how === "insist";
  if (form.hidden) {
    form.hidden = false;
    error.textContent = "";
    if (how !== "once") field.focus();
  }
  return new Promise((resolve) => waiting.push(resolve));
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  byId("key-use").disabled = true;
  error.textContent = "";
  try {
    const { name } = await openSession(field.value.trim());
    localStorage.setItem(WHOSE, name);
    field.value = "";
    form.hidden = true;
    showWhose();
    for (const resolve of waiting.splice(0)) resolve();
  } catch (problem) {
    error.textContent = problem.needsKey ? "This key is not known here." : `${describe(problem)}.`;
    field.select();
  } finally {
    byId("key-use").disabled = false;
  }
});

byId("key-away").addEventListener("click", () => {
  form.hidden = putAway = true;
});

byId("key-forget").addEventListener("click", async () => {
  await closeSession();
  localStorage.removeItem(WHOSE);
  location.reload();
});

function showWhose() {
  const name = localStorage.getItem(WHOSE);
  byId("whose").hidden = !name;
  byId("whose-name").textContent = name ?? "";
}

showWhose();
