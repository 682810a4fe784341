/**
 * Repainting a part of the picture: it is marked, up to four candidates are looked at in their
 * place, and one is kept, or none. Each candidate is a canvas, a branch of the one in sight.
 */

import { laidInto } from "./around.js";
import { createCanvas, deleteCanvas, deletePicture } from "./canvases.js";
import { byId } from "./elements.js";
import { askForKey } from "./keys.js";
import { formatLink } from "./link.js";
import { describe } from "./status.js";

/** @typedef {import("./canvases.js").Canvas} Canvas */
/** @typedef {import("./grid.js").Rectangle} Rectangle */
/** @typedef {InstanceType<typeof import("./marking.js").Marking>} Marking */
/** @typedef {InstanceType<typeof import("./picture.js").Picture>} Picture */
/** @typedef {import("./canvases.js").Known} Known */
/** @typedef {{parent: Canvas, rectangle: Rectangle, words: string, file: File|undefined,
 *   known: Known|null, made: (Canvas|null)[]}} Choice
 *  What is repainted, the picture that goes there, if one does, and the candidates by number: null
 *  where none was asked for. */

const CANDIDATES = 4;
const SEEDS = 1_000_000;
/** Sides of a rectangle that is repainted, at most. */
const MAX_BRANCH_PX = 4096;

const bar = byId("choosing");

export class Repainting {
  /** @type {Choice|null} */ #choice = null;
  /** @type {Canvas[]} candidates that nobody wants, until they are deleted */ #unwanted = [];
  /** @type {string|undefined} that was uploaded for these */ #unwantedPicture;
  /** @type {Promise<any>} the deletions under way */ #going = Promise.resolve();

  /**
   * @param {L.Map} map
   * @param {() => Picture|null} inSight
   * @param {Marking} marking
   * @param {() => void} begins called before the picture is marked
   */
  constructor(map, inSight, marking, begins) {
    this.map = map;
    this.inSight = inSight;
    this.marking = marking;
    byId("repainting").addEventListener("submit", (event) => {
      event.preventDefault();
      begins();
      this.#mark();
    });
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
    const marked = this.marking.close();
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

  async #mark() {
    byId("repaint-error").textContent = "";
    const words = "Drag over what is to be repainted";
    const rectangle = await this.marking.mark(words, { most_px: MAX_BRANCH_PX });
    if (rectangle) this.#repaint(rectangle);
    else this.map.getContainer().focus();
  }

  /** @param {Rectangle} rectangle */
  #repaint(rectangle) {
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
    for (const button of [byId("repaint"), ...byId("candidates").children]) button.disabled = busy;
  }
}

/** @param {Choice} choice @returns {object} the spec of another candidate */
function specOf({ parent, rectangle, words, known }) {
  const said = words ? { prompt: words } : { prompt: parent.prompt, regions: parent.regions };
  const seed = Math.floor(Math.random() * SEEDS);
  const branch = { parent: parent.id, ...rectangle };
  return { seed, ...said, branch, ...(known && { known }) };
}
