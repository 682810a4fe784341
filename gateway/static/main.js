/** The viewer: opens the canvas that the address names, and keeps the address up to date. */

import { Problem, getCanvas, getWorlds } from "./canvases.js";
import { Film } from "./film.js";
import { ROOT_ZOOM } from "./grid.js";
import { askForKey } from "./keys.js";
import { formatLink, parseLink } from "./link.js";
import { Marking } from "./marking.js";
import { Panel, titleOf } from "./panel.js";
import { Picture } from "./picture.js";
import { Repainting } from "./repainting.js";
import { Saving } from "./saving.js";
import { describe, say, setProgress, setState, unsay } from "./status.js";

/** @typedef {import("./canvases.js").Canvas} Canvas */
/** @typedef {import("./link.js").Link} Link */

const STARTING_RETRY_S = 2;
/** The address follows the window this often; some browsers refuse more than 100 times in 30 s. */
const ADDRESS_MS = 400;

const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
const map = makeMap();
const marking = new Marking(map, () => picture);
const panel = new Panel(marking, { deleted: leaveDeleted });

/** @type {import("./canvases.js").World[]} */
let worlds = [];
/** @type {Picture|null} */
let picture = null;
/** @type {Film|null} */
let film = null;
/** Pictures that stay under one that is like them until that is painted. @type {Picture[]} */
let under = [];
const repainting = new Repainting(
  map,
  () => picture,
  marking,
  () => panel.toggle(false),
);
new Saving(() => picture && { canvas: picture.canvas.id, frame: picture.frame, ...picture.region() });
/** Counts what was asked to be opened: only the last is. */
let opening = 0;
let addressTimer = 0;
/** The address as it was last followed or written. */
let address = "";

function makeMap() {
  const { Map, Browser } = window.L;
  const made = new Map("map", {
    attributionControl: false,
    zoomControl: false,
    minZoom: ROOT_ZOOM,
    zoomSnap: 0,
    wheelPxPerZoomLevel: 120,
    keyboardPanDelta: 160,
    bounceAtZoomLimits: false,
    maxBoundsViscosity: 0.85,
    // Tiles fade in by style sheet, which also knows who wants no motion.
    fadeAnimation: false,
    zoomAnimation: !still,
    inertia: !still,
  });
  if (still) {
    // Leaflet's keyboard glides, and has no option not to.
    made.panBy = (offset) => Map.prototype.panBy.call(made, offset, { animate: false });
  }
  made.on("move zoomend", () => noteAddress());
  document.getElementById("zoom-in").addEventListener("click", () => made.zoomIn());
  document.getElementById("zoom-out").addEventListener("click", () => made.zoomOut());
  if (!Browser.mobile) focusQuietly(made.getContainer());
  return made;
}

/** Lets the keyboard move the picture from the start, without the frame that says so. */
function focusQuietly(container) {
  container.classList.add("quiet");
  container.addEventListener("blur", () => container.classList.remove("quiet"), { once: true });
  container.focus({ preventScroll: true });
}

function noteAddress() {
  addressTimer ||= setTimeout(writeAddress, ADDRESS_MS);
}

function writeAddress() {
  clearTimeout(addressTimer);
  addressTimer = 0;
  if (!picture) return;
  const view = picture.view();
  panel.setView(view, picture.frame);
  // Else somebody went on to a link whose event is still on its way: it must not be written over.
  if (location.hash !== address) return;
  address = formatLink(picture.canvas.id, view, picture.frame);
  if (address !== location.hash) history.replaceState(null, "", address);
}

/** @param {number} s */
const pause = (s) => new Promise((resolve) => setTimeout(resolve, 1000 * s));

/**
 * Asks until there is an answer.
 * @template T
 * @param {() => Promise<T>} ask
 * @param {() => boolean} wanted whether the answer still matters
 * @param {string} [starting] what to say where a 503 means that the system has not started yet
 * @returns {Promise<T>}
 * @throws {Problem} that will not pass, or no longer matters
 */
async function patiently(ask, wanted, starting) {
  while (true) {
    try {
      const answer = await ask();
      unsay();
      return answer;
    } catch (problem) {
      if (problem instanceof Problem && problem.needsKey && wanted()) {
        unsay();
        await askForKey(problem, "insist");
        continue;
      }
      if (!(problem instanceof Problem && problem.passing && wanted())) throw problem;
      const retry_s = problem.retry_s ?? STARTING_RETRY_S;
      if (starting && problem.status === 503) say(starting);
      else say(describe(problem), retry_s);
      await pause(retry_s);
    }
  }
}

/** Opens what the address names; without a link, the first world's first canvas. */
function followAddress() {
  address = location.hash;
  if (!location.hash || location.hash === "#") {
    open({ canvas: worlds[0].canvas, view: null, frame: 0 });
    return;
  }
  const link = parseLink(location.hash);
  if (!link) showLost();
  else if (link.canvas === picture?.canvas.id) {
    film.open(link.frame);
    picture.look(link.view);
  } else open(link);
}

/** @param {Link} link */
async function open(link) {
  const turn = ++opening;
  setState("starting");
  let canvas;
  try {
    canvas = await patiently(
      () => getCanvas(link.canvas),
      () => turn === opening,
    );
  } catch {
    if (turn === opening) showLost();
    return;
  }
  if (turn === opening) show(canvas, link);
}

/** @param {Canvas} canvas @param {Link} link */
function show(canvas, { view, frame }) {
  if (picture && akin(picture.canvas, canvas)) {
    picture.retire();
    under.push(picture);
  } else close();
  unsay();
  picture = new Picture(map, canvas, view, frame, {
    progress(painted, of) {
      film?.ready(painted === of);
      setProgress(painted / of);
      if (painted === of) {
        setState("ready");
        uncover();
      } else if (document.documentElement.dataset.state !== "problem") setState("painting");
    },
    trouble(problem, retry_s) {
      setState("problem");
      say(describe(problem), retry_s);
    },
    recovered() {
      unsay();
      setState("painting");
    },
    refused: (problem) => (problem.needsKey ? stayUnpainted(problem) : showLost()),
  });
  film?.remove();
  film = new Film(canvas.frames, picture.frame, (frame, next) => {
    picture.setFrame(frame, next);
    noteAddress();
  });
  document.documentElement.dataset.canvas = canvas.id;
  document.title = `${titleOf(canvas)} · Handscroll`;
  panel.setCanvas(canvas);
  repainting.shown(canvas);
  writeAddress();
}

/** @param {Canvas} one @param {Canvas} other @returns {boolean} whether most of both is the same */
function akin(one, other) {
  const family = ({ id, branch }) => [id, branch?.parent];
  return family(one).some((id) => id && family(other).includes(id));
}

function uncover() {
  for (const one of under) one.remove();
  under = [];
}

function close() {
  film?.remove();
  uncover();
  picture?.remove();
  film = picture = null;
  unsay();
  document.getElementById("lost").hidden = true;
  delete document.documentElement.dataset.canvas;
}

/** What is painted stays in sight; for the rest somebody must have a key. @param {Problem} problem */
async function stayUnpainted(problem) {
  const stayed = picture;
  setState("problem");
  await askForKey(problem, "once");
  if (picture !== stayed) return;
  setState("painting");
  picture.painting.retry();
}

function showLost() {
  opening += 1;
  close();
  repainting.shown(null);
  setState("problem");
  document.getElementById("lost").hidden = false;
  document.getElementById("home").href = formatLink(worlds[0].canvas);
}

/** @param {Canvas} canvas */
function leaveDeleted({ id }) {
  if (picture?.canvas.id === id) location.hash = formatLink(worlds[0].canvas);
}

worlds = await patiently(getWorlds, () => true, "Waking the painters…");
// Scrolls first, which gave all this its name.
worlds.sort(
  (one, other) => Number(other.extent.kind === "scroll") - Number(one.extent.kind === "scroll"),
);
panel.setWorlds(worlds);
window.addEventListener("hashchange", followAddress);
followAddress();
