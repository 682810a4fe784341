/** Marking a rectangle of the picture in sight, on a sheet that lies over it. */

import { byId, element } from "./elements.js";
import { snapped, toLatLng, toPixel } from "./grid.js";

/** @typedef {import("./grid.js").Rectangle} Rectangle */
/** @typedef {InstanceType<typeof import("./picture.js").Picture>} Picture */

/** A finger that moves less has only touched. */
const LEAST_DRAG_PX = 8;

const sheet = byId("marking");
const frame = byId("mark");

export class Marking {
  /** @type {{x: number, y: number}|null} */ #from = null;
  /** @type {((rectangle: Rectangle|null) => void)|null} of whoever waits */ #tell = null;
  #most_px = Infinity;

  /** @param {L.Map} map @param {() => Picture|null} inSight */
  constructor(map, inSight) {
    this.map = map;
    this.inSight = inSight;
    sheet.addEventListener("pointerdown", (event) => this.#begin(event));
    sheet.addEventListener("pointermove", (event) => this.#drag(event));
    sheet.addEventListener("pointerup", (event) => this.#drop(event));
    sheet.addEventListener("pointercancel", () => this.#lift());
    sheet.addEventListener("keydown", (event) => this.#key(event));
    byId("marking-leave").addEventListener("click", () => this.close());
  }

  /**
   * Lays the sheet over the picture. It stays, with what was marked on it, until it is closed.
   * @param {string} words what the rectangle is for
   * @param {{others?: Rectangle[], most_px?: number}} [options] what was marked before, and how long
   *     a side may be
   * @returns {Promise<Rectangle|null>} null if it was closed before, or no picture is there
   */
  mark(words, { others = [], most_px = Infinity } = {}) {
    if (!this.inSight()) return Promise.resolve(null);
    this.#most_px = most_px;
    byId("marking-words").textContent = words;
    byId("marked").replaceChildren(
      ...others.map((rectangle) => this.#lay(element("div"), rectangle)),
    );
    frame.hidden = true;
    sheet.hidden = false;
    sheet.focus();
    return new Promise((resolve) => (this.#tell = resolve));
  }

  /** @returns {boolean} whether the sheet was there */
  close() {
    const open = !sheet.hidden;
    sheet.hidden = true;
    this.#from = null;
    this.#tell?.(null);
    this.#tell = null;
    return open;
  }

  /** @param {Rectangle|null} rectangle null if nothing of the canvas was marked */
  #take(rectangle) {
    if (!rectangle) return;
    this.#tell?.(rectangle);
    this.#tell = null;
  }

  /** @param {KeyboardEvent} event Enter takes the middle of the window. */
  #key(event) {
    if (event.target !== sheet && event.key !== "Escape") return;
    if (event.key === "Enter") {
      const { x, y } = this.map.getSize();
      this.#take(this.#between({ x: 0.35 * x, y: 0.35 * y }, { x: 0.65 * x, y: 0.65 * y }));
    } else if (event.key === "Escape") {
      event.stopPropagation();
      this.close();
    } else return;
    event.preventDefault();
  }

  /** @param {PointerEvent} event */
  #begin({ target, clientX, clientY, pointerId, isPrimary }) {
    if (target !== sheet || !isPrimary || !this.#tell) return;
    sheet.setPointerCapture(pointerId);
    this.#from = { x: clientX, y: clientY };
  }

  /** @param {PointerEvent} event */
  #drag(event) {
    if (!this.#from) return;
    const rectangle = this.#dragged(event);
    frame.hidden = !rectangle;
    if (rectangle) this.#lay(frame, rectangle);
  }

  /** @param {PointerEvent} event */
  #drop(event) {
    const rectangle = this.#dragged(event);
    this.#from = null;
    this.#take(rectangle);
  }

  #lift() {
    this.#from = null;
    frame.hidden = true;
  }

  /** @param {HTMLElement} box @param {Rectangle} rectangle @returns {HTMLElement} there, now */
  #lay(box, { left, top, width, height }) {
    const { extent } = this.inSight().canvas;
    const at = (x, y) => this.map.latLngToContainerPoint(toLatLng(extent, { x, y }));
    const [first, last] = [at(left, top), at(left + width, top + height)];
    box.style.translate = `${first.x}px ${first.y}px`;
    box.style.width = `${last.x - first.x}px`;
    box.style.height = `${last.y - first.y}px`;
    return box;
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
    return snapped(extent, pixel(from), pixel(to), this.#most_px);
  }
}
