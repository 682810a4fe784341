/**
 * Repainting a part of the picture: it is marked, up to four candidates are looked at in their
 * place, and one is kept, or none. Each candidate is a canvas, a branch of the one in sight.
 */

import { laidInto } from "./around.js";
import { createCanvas, deleteCanvas, deletePicture } from "./canvases.js";
import { snapped, toLatLng, toPixel } from "./grid.js";
import { askForKey } from "./keys.js";
import { formatLink } from "./link.js";
import { describe } from "./status.js";

/** @typedef {import("./canvases.js").Canvas} Canvas */
/** @typedef {import("./grid.js").Rectangle} Rectangle */
/** @typedef {InstanceType<typeof import("./picture.js").Picture>} Picture */
/** @typedef {import("./canvases.js").Known} Known */
/** @typedef {{parent: Canvas, rectangle: Rectangle, words: string, file: File|undefined,
 *   known: Known|null, made: (Canvas|null)[]}} Choice
 *  What is repainted, the picture that goes there, if one does, and the candidates by number: null
 *  where none was asked for. */

const CANDIDATES = 4;
const SEEDS = 1_000_000;
/** A finger that moves less has only touched. */
const LEAST_DRAG_PX = 8;

/** @returns {any} */
const byId = (id) => document.getElementById(id);
const sheet = byId("marking");
const frame = byId("mark");
const bar = byId("choosing");

export class Repainting {
  /** @type {Choice|null} */ #choice = null;
  /** @type {{x: number, y: number}|null} */ #from = null;
  /** @type {Canvas[]} candidates that nobody wants, until they are deleted */ #unwanted = [];
  /** @type {string|undefined} that was uploaded for these */ #unwantedPicture;
  /** @type {Promise<any>} the deletions under way */ #going = Promise.resolve();
  #asking = false;

  /**
   * @param {L.Map} map
   * @param {() => Picture|null} inSight
   * @param {() => void} begins called before the picture is marked
   */
  constructor(map, inSight, begins) {
    this.map = map;
    this.inSight = inSight;
    byId("repainting").addEventListener("submit", (event) => {
      event.preventDefault();
      begins();
      this.#mark();
    });
    sheet.addEventListener("pointerdown", (event) => this.#begin(event));
    sheet.addEventListener("pointermove", (event) => this.#drag(event));
    sheet.addEventListener("pointerup", (event) => this.#drop(event));
    sheet.addEventListener("pointercancel", () => this.#lift());
    sheet.addEventListener("keydown", (event) => this.#key(event));
    byId("candidates").replaceChildren(
      ...Array.from({ length: CANDIDATES }, (_, number) => this.#button(number)),
    );
    byId("choose-none").addEventListener("click", () => this.#end(null));
    byId("choose").addEventListener("click", () => {
      byId("repaint-picture").value = "";
      this.#end(this.inSight()?.canvas);
    });
  }

  /** Says which canvas is in sight now. @param {Canvas|null} canvas */
  shown(canvas) {
    const marked = !sheet.hidden;
    this.#unmark();
    this.#discard(canvas);
    if (!this.#choice) return;
    const number = this.#choice.made.findIndex((one) => one && one.id === canvas?.id);
    if (number < 0 && canvas?.id !== this.#choice.parent.id) this.#choice = null; // it was left
    bar.hidden = !this.#choice;
    byId("choose").disabled = number < 0;
    for (const [place, button] of [...byId("candidates").children].entries()) {
      button.setAttribute("aria-pressed", String(place === number));
      if (marked && place === number) button.focus();
    }
  }

  #button(number) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = String(number + 1);
    button.setAttribute("aria-label", `Candidate ${number + 1}`);
    button.addEventListener("click", () => this.#look(number));
    return button;
  }

  // Marking: a sheet lies over the picture.

  #mark() {
    byId("repaint-error").textContent = "";
    sheet.hidden = false;
    frame.hidden = true;
    sheet.focus();
  }

  #unmark() {
    sheet.hidden = true;
    this.#from = null;
  }

  /** @param {KeyboardEvent} event Enter takes the middle of the window. */
  #key(event) {
    if (event.key === "Enter" && !this.#asking) {
      const { x, y } = this.map.getSize();
      this.#repaint(this.#between({ x: 0.35 * x, y: 0.35 * y }, { x: 0.65 * x, y: 0.65 * y }));
    } else if (event.key === "Escape") {
      event.stopPropagation();
      this.#unmark();
      this.map.getContainer().focus();
    } else return;
    event.preventDefault();
  }

  /** @param {PointerEvent} event */
  #begin({ clientX, clientY, pointerId, isPrimary }) {
    if (!isPrimary || this.#asking) return;
    sheet.setPointerCapture(pointerId);
    this.#from = { x: clientX, y: clientY };
  }

  /** @param {PointerEvent} event */
  #drag(event) {
    if (!this.#from) return;
    const rectangle = this.#dragged(event);
    frame.hidden = !rectangle;
    if (!rectangle) return;
    const { extent } = this.inSight().canvas;
    const { left, top, width, height } = rectangle;
    const at = (x, y) => this.map.latLngToContainerPoint(toLatLng(extent, { x, y }));
    const [first, last] = [at(left, top), at(left + width, top + height)];
    frame.style.translate = `${first.x}px ${first.y}px`;
    frame.style.width = `${last.x - first.x}px`;
    frame.style.height = `${last.y - first.y}px`;
  }

  /** @param {PointerEvent} event */
  #drop(event) {
    const rectangle = this.#dragged(event);
    this.#from = null;
    if (rectangle) this.#repaint(rectangle);
  }

  #lift() {
    this.#from = null;
    frame.hidden = true;
  }

  /** @param {PointerEvent} event @returns {Rectangle|null} what was dragged over by now */
  #dragged({ clientX: x, clientY: y }) {
    if (!this.#from || Math.hypot(x - this.#from.x, y - this.#from.y) < LEAST_DRAG_PX) return null;
    return this.#between(this.#from, { x, y });
  }

  /** @param {{x: number, y: number}} from @param {{x: number, y: number}} to points of the window */
  #between(from, to) {
    const { extent } = this.inSight().canvas;
    const pixel = ({ x, y }) => toPixel(extent, this.map.containerPointToLatLng([x, y]));
    return snapped(extent, pixel(from), pixel(to));
  }

  // Choosing: a bar lies under it.

  /** @param {Rectangle|null} rectangle null if nothing of the canvas was marked */
  #repaint(rectangle) {
    if (!rectangle) return;
    const parent = this.inSight().canvas;
    if (this.#choice) this.#end(parent);
    const words = byId("repaint-words").value.trim();
    const [file] = byId("repaint-picture").files;
    const made = Array(CANDIDATES).fill(null);
    this.#choice = { parent, rectangle, words, file, known: null, made };
    this.#look(0);
  }

  /** @param {number} number of the candidate */
  async #look(number) {
    const choice = this.#choice;
    byId("repaint-error").textContent = "";
    this.#busy(true);
    try {
      if (choice.file) {
        choice.known ??= await laidInto(choice.file, choice.parent.extent, choice.rectangle);
      }
      choice.made[number] ??= await createCanvas(specOf(choice));
      if (choice === this.#choice) this.#open(choice.made[number].id);
    } catch (problem) {
      if (choice !== this.#choice) return;
      this.shown(this.inSight()?.canvas ?? null);
      if (problem.needsKey) askForKey(problem, "always").then(() => this.#look(number));
      else byId("repaint-error").textContent = problem.passing
        ? `${describe(problem)}. Please try again.`
        : problem.message;
    } finally {
      this.#busy(false);
    }
  }

  /** @param {Canvas|null} kept the candidate that is to stay */
  #end(kept) {
    const { parent, made, known } = this.#choice;
    this.#choice = null;
    bar.hidden = true;
    if (!kept) this.#unwantedPicture = known?.picture;
    this.#unwanted.push(...made.filter((one) => one && one.id !== kept?.id));
    this.#discard(this.inSight()?.canvas);
    if (!kept) this.#open(parent.id);
    this.map.getContainer().focus();
  }

  /** Deletes what nobody wants, once it is out of sight. @param {Canvas|null} [seen] */
  #discard(seen) {
    const gone = this.#unwanted.filter(({ id }) => id !== seen?.id);
    this.#unwanted = this.#unwanted.filter(({ id }) => id === seen?.id);
    // Another's branch may stand on one: it stays, then, and so does the picture in it.
    const going = gone.map(({ id }) => deleteCanvas(id).catch(() => {}));
    this.#going = Promise.all([this.#going, ...going]);
    const picture = this.#unwantedPicture;
    if (!picture || this.#unwanted.length) return;
    this.#unwantedPicture = undefined;
    this.#going.then(() => deletePicture(picture)).catch(() => {});
  }

  /** @param {string} id */
  #open(id) {
    const seen = this.inSight();
    location.hash = formatLink(id, seen?.view(), seen?.frame);
  }

  /** @param {boolean} busy */
  #busy(busy) {
    this.#asking = busy;
    for (const button of byId("candidates").children) button.disabled = busy;
  }
}

/** @param {Choice} choice @returns {object} the spec of another candidate */
function specOf({ parent, rectangle, words, known }) {
  const said = words ? { prompt: words } : { prompt: parent.prompt, regions: parent.regions };
  const seed = Math.floor(Math.random() * SEEDS);
  const branch = { parent: parent.id, ...rectangle };
  return { seed, ...said, branch, ...(known && { known }) };
}
