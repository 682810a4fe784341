/** A canvas on the map: its layers, its bounds, and the painting of what is looked at. */

import { coverZoom, extentBounds, homeView, maxZoom, regionOf, toLatLng, toPixel } from "./grid.js";
import { Painting } from "./painting.js";
import { Sheen } from "./sheen.js";
import { Paper, Tiles, zIndexOf } from "./tiles.js";

/** @typedef {import("./canvases.js").Canvas} Canvas */
/** @typedef {import("./grid.js").View} View */

export class Picture {
  /**
   * @param {L.Map} map
   * @param {Canvas} canvas
   * @param {View|null} view where to look; null for where the canvas opens
   * @param {number} frame to show; the last if there are fewer
   * @param {import("./painting.js").Reports} reports
   */
  constructor(map, canvas, view, frame, reports) {
    this.map = map;
    this.canvas = canvas;
    /** The frame in sight. */
    this.frame = Math.min(frame, canvas.frames - 1);
    const { id, extent } = canvas;
    this.cover = coverZoom(extent, map.getSize());

    map.setMaxBounds(null);
    map.setMaxZoom(maxZoom(extent, map.getSize()));
    this.look(view);
    map.setMaxBounds(extentBounds(extent));

    this.tiles = Array.from(
      { length: extent.finest + 1 },
      (_, level) => new Tiles(id, extent, level, this.frame),
    );
    this.sheen = new Sheen(extent);
    this.layers = [new Paper(extent), this.sheen, ...this.tiles];
    for (const layer of this.layers) map.addLayer(layer);
    this.painting = new Painting(map, this.tiles, id, this.frame, reports);
    map.on("zoomend", this.markZoom, this);
    map.on("resize", this.refit, this);
    this.markZoom();
  }

  /** Leaves the canvas on the map as it is; nothing more is painted of it. */
  retire() {
    this.painting.stop();
    this.map.off("zoomend", this.markZoom, this);
    this.map.off("resize", this.refit, this);
  }

  /** Takes the canvas off the map. */
  remove() {
    this.retire();
    for (const layer of this.layers) this.map.removeLayer(layer);
  }

  /** @param {number} frame @param {number|null} next to have ready after it, if one is wanted */
  setFrame(frame, next) {
    this.frame = frame;
    this.painting.setFrame(frame, next);
  }

  /** @param {View|null} view null for where the canvas opens */
  look(view) {
    const { zoom, x, y } = view ?? homeView(this.canvas.extent, this.map.getSize());
    const possible = Math.min(this.map.getMaxZoom(), Math.max(this.map.getMinZoom(), zoom));
    if (this.#isAt({ zoom: possible, x, y })) return; // else all tiles are taken off, and on again
    this.map.setView(toLatLng(this.canvas.extent, { x, y }), possible, { animate: false });
  }

  /** @param {View} view @returns {boolean} as closely as a link can say */
  #isAt({ zoom, x, y }) {
    if (this.map.getZoom() === undefined) return false;
    const now = this.view();
    const away = Math.max(Math.abs(now.x - x), Math.abs(now.y - y));
    return Math.abs(now.zoom - zoom) < 0.01 && away < 1;
  }

  /** @returns {View} */
  view() {
    return { zoom: this.map.getZoom(), ...toPixel(this.canvas.extent, this.map.getCenter()) };
  }

  /** @returns {import("./grid.js").Region} what is in the window */
  region() {
    return regionOf(this.canvas.extent, this.map.getBounds(), this.map.getZoom());
  }

  /** Puts the sheen under the finest level in sight, and says whether pixels meet pixels. */
  markZoom() {
    this.map.getContainer().classList.toggle("whole-zoom", Number.isInteger(this.map.getZoom()));
    this.sheen.setZIndex(zIndexOf(this.tiles.findLastIndex((layer) => layer.isShown())) - 1);
  }

  /** A picture that filled the window fills it in its new size as well. */
  refit() {
    const { extent } = this.canvas;
    const filled = this.cover !== null && Math.abs(this.map.getZoom() - this.cover) < 0.02;
    this.cover = coverZoom(extent, this.map.getSize());
    this.map.setMaxZoom(maxZoom(extent, this.map.getSize()));
    if (filled) this.map.setZoom(this.cover, { animate: false });
  }
}
