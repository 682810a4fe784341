/** Places with words of their own, for a new canvas: they are marked on the picture in sight. */

import { byId, element, icon } from "./elements.js";

/** @typedef {import("./grid.js").Extent} Extent */
/** @typedef {import("./grid.js").Rectangle & {prompt: string}} PromptRegion */
/** @typedef {InstanceType<typeof import("./marking.js").Marking>} Marking */

/** How many a canvas may have. */
const MOST = 32;

const words = byId("region-words");

/**
 * Refuses places of which nothing would be seen.
 * @param {PromptRegion[]} regions @param {Extent} [extent] of a canvas with an end on all sides
 */
export function checkSeen(regions, extent) {
  const outside = ({ top, left, height, width }) =>
    Math.max(left, 0) >= Math.min(left + width, extent.width_px) ||
    Math.max(top, 0) >= Math.min(top + height, extent.height_px);
  const unseen = extent && regions.find(outside);
  if (!unseen) return;
  const { width_px, height_px } = extent;
  throw new Error(
    `“${unseen.prompt}” lies outside the picture, which is from 0, 0 to ${width_px}, ${height_px}.`,
  );
}

export class Regions {
  /** @type {{world: string, region: PromptRegion}[]} */ #marked = [];
  /** @type {string} of the canvas that is to be made */ #world = "";
  /** @type {string|undefined} of the picture in sight */ #seen;

  /** @param {Marking} marking @param {(open: boolean) => void} show the panel */
  constructor(marking, show) {
    this.marking = marking;
    this.show = show;
    byId("placing").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#mark();
    });
  }

  /** Pixels of another world are other places. @param {string} world @param {string} [seen] */
  setWorlds(world, seen) {
    this.#world = world;
    this.#seen = seen;
    this.#list();
  }

  /** @returns {PromptRegion[]} as a canvas' spec has them */
  spec() {
    const left = words.value.trim();
    if (left && !words.disabled) throw new Error(`Mark where “${left}” is to be, or take it away.`);
    return this.#here().map(({ region }) => region);
  }

  #here() {
    return this.#marked.filter(({ world }) => world === this.#world);
  }

  async #mark() {
    const prompt = words.value.trim();
    this.show(false);
    const others = this.#here().map(({ region }) => region);
    const rectangle = await this.marking.mark("Drag over the place for these words", { others });
    if (rectangle) {
      this.#marked.push({ world: this.#world, region: { prompt, ...rectangle } });
      words.value = "";
      this.#list();
    }
    this.show(true);
    words.focus();
  }

  #list() {
    const here = this.#here();
    const elsewhere = this.#world !== this.#seen;
    words.disabled = byId("region-mark").disabled = elsewhere || here.length >= MOST;
    if (elsewhere) words.placeholder = `look at a ${this.#world} to mark them`;
    else words.placeholder = words.disabled ? `there may be ${MOST}` : "a stormy sea";
    byId("regions").replaceChildren(...here.map((one) => this.#row(one)));
  }

  /** @param {{world: string, region: PromptRegion}} marked @returns {HTMLLIElement} */
  #row(marked) {
    const { prompt, width, height, left, top } = marked.region;
    const remove = element(
      "button",
      { type: "button", className: "plain", title: "Remove", ariaLabel: `Remove ${prompt}` },
      icon("close"),
    );
    remove.addEventListener("click", () => {
      this.#marked = this.#marked.filter((one) => one !== marked);
      this.#list();
      words.focus();
    });
    const place = `${width} × ${height} px at ${left}, ${top}`;
    return element(
      "li",
      {},
      element(
        "span",
        { className: "name" },
        element("span", { className: "prompt" }, prompt),
        element("span", { className: "note" }, place),
      ),
      remove,
    );
  }
}
