/**
 * A light that passes over what is being painted.
 *
 * It lies under the finest level in sight and above the coarser ones, so that it shows exactly
 * where finest tiles are missing.
 */

import { extentBounds } from "./grid.js";

const { Bounds, DomUtil, Layer } = window.L;

export const Sheen = Layer.extend({
  /** @param {import("./grid.js").Extent} extent */
  initialize(extent) {
    this.bounds = extentBounds(extent);
  },

  onAdd(map) {
    this.el = DomUtil.create("div", "sheen", map.getPane("tilePane"));
    this.place();
  },

  onRemove() {
    this.el.remove();
  },

  getEvents() {
    return { move: this.place, zoomend: this.place, viewreset: this.place, resize: this.place };
  },

  /** Covers what of the canvas is in the window. */
  place() {
    const map = this._map;
    const corner = (latlng) => map.latLngToContainerPoint(latlng);
    const canvas = new Bounds(
      corner(this.bounds.getNorthWest()),
      corner(this.bounds.getSouthEast()),
    );
    const size = map.getSize();
    const left = Math.max(0, canvas.min.x);
    const top = Math.max(0, canvas.min.y);
    DomUtil.setPosition(this.el, map.containerPointToLayerPoint([left, top]).round());
    this.el.style.width = `${Math.max(0, Math.min(size.x, canvas.max.x) - left)}px`;
    this.el.style.height = `${Math.max(0, Math.min(size.y, canvas.max.y) - top)}px`;
  },

  /** @param {number} zIndex */
  setZIndex(zIndex) {
    this.el.style.zIndex = zIndex;
  },
});
