/**
 * The layers a canvas is shown in: blank paper, and above it one layer of tiles for each level.
 *
 * A layer holds one level at all zooms, so a coarse level stays in sight until the finer one covers
 * it, in places never looked at before as well.
 */

import { tileUrl } from "./canvases.js";
import { ROOT_ZOOM, beyond, commonTiles, extentTiles, holdsTile } from "./grid.js";

const { GridLayer } = window.L;

/** @typedef {import("./grid.js").Extent} Extent */
/** @typedef {import("./grid.js").TileRange} TileRange */
/** @typedef {{x: number, y: number, z: number}} Coords */
/** @typedef {"loading"|"pending"|"painted"} TileState
 *  Asked for; not painted yet; in sight. */
/** @typedef {{coords: Coords, el: HTMLElement, state: TileState, abort: AbortController,
 *             told: boolean, images: Map<number, HTMLImageElement>}} Entry
 *  `told` says that the tile was reported as painted while it was being asked for; `images` are
 *  those of its frames. */

const LevelLayer = GridLayer.extend({
  /** @param {Extent} extent @param {number} level @param {object} options */
  initialize(extent, level, options) {
    const zoom = ROOT_ZOOM + level;
    this.extent = extent;
    this.zoom = zoom;
    GridLayer.prototype.initialize.call(this, {
      minNativeZoom: zoom,
      maxNativeZoom: zoom,
      noWrap: true,
      updateWhenIdle: false,
      ...options,
    });
  },

  /** Asked by Leaflet of every tile; its own bounds are degrees, and round at a canvas's edge. */
  _isValidTile(coords) {
    return holdsTile(extentTiles(this.extent, coords.z), coords);
  },

  /**
   * The canvas's tiles in the window, by Leaflet's own reckoning: it has made each of them.
   * @param {number} [margin] tiles to add on all sides
   * @returns {TileRange|null} null where the canvas is out of sight
   */
  windowTiles(margin = 0) {
    const { min, max } = this._pxBoundsToTileRange(
      this._getTiledPixelBounds(this._map.getCenter()),
    );
    const range = {
      z: this.zoom,
      left: min.x - margin,
      top: min.y - margin,
      right: max.x + margin,
      bottom: max.y + margin,
    };
    return commonTiles(range, extentTiles(this.extent, this.zoom));
  },
});

/** The paper under the tiles. */
export const Paper = LevelLayer.extend({
  /** @param {Extent} extent */
  initialize(extent) {
    const ends = extent.height_px !== null || extent.width_px !== null;
    const className = ends ? "paper edged" : "paper";
    LevelLayer.prototype.initialize.call(this, extent, 0, { className, zIndex: 0 });
  },

  /** @param {Coords} coords @returns {HTMLElement} paper as far as the canvas reaches */
  createTile(coords) {
    const el = document.createElement("div");
    const { right, bottom } = beyond(this.extent, coords);
    // Where the canvas goes on, tiles overlap a little, or the desk would shine through.
    const inset = (part) => (part ? `${100 * part}%` : "-0.5px");
    el.style.setProperty("--right-in", inset(right));
    el.style.setProperty("--bottom-in", inset(bottom));
    return el;
  },
});

/** The tiles of one level. Fires `tilestate` whenever the state of a tile changes. */
export const Tiles = LevelLayer.extend({
  /**
   * @param {string} canvas its id @param {Extent} extent @param {number} level
   * @param {number} frame
   */
  initialize(canvas, extent, level, frame) {
    this.canvas = canvas;
    this.frame = frame;
    /** @type {Map<string, Entry>} */
    this.entries = new Map();
    LevelLayer.prototype.initialize.call(this, extent, level, {
      className: "tiles",
      zIndex: zIndexOf(level),
      // A level comes into sight half a zoom before its own; the coarsest is always there. Not
      // sooner on dense screens: four times the tiles is a long wait where tiles must be painted.
      ...(level > 0 && { minZoom: ROOT_ZOOM + level - 0.5 }),
    });
    this.on("tileunload", ({ coords }) => this.forget(coords));
  },

  /** @returns {boolean} whether this level is in sight at the map's zoom */
  isShown() {
    return this._tileZoom !== undefined;
  },

  createTile(coords) {
    const el = document.createElement("div");
    const abort = new AbortController();
    const entry = { coords, el, state: "loading", abort, told: false, images: new Map() };
    this.entries.set(keyOf(coords), entry);
    this.load(entry);
    return el;
  },

  /**
   * Shows another frame. What is in sight stays until its successor is there, and frames that were
   * in sight come back at once.
   * @param {number} frame
   */
  setFrame(frame) {
    this.frame = frame;
    for (const entry of this.entries.values()) {
      entry.abort.abort();
      entry.abort = new AbortController();
      this.load(entry);
    }
  },

  /** @param {Coords} coords of a tile that left the window */
  forget(coords) {
    this.entries.get(keyOf(coords))?.abort.abort();
    this.entries.delete(keyOf(coords));
  },

  /** @param {Coords} coords of a tile that is there now */
  tell(coords) {
    const entry = this.entries.get(keyOf(coords));
    if (!entry) return;
    if (entry.state === "pending") this.load(entry);
    else entry.told = true;
  },

  /** Asks for a tile, and shows it if it is there. @param {Entry} entry */
  async load(entry) {
    const { frame } = this;
    const { signal } = entry.abort;
    if (entry.images.has(frame)) {
      this.present(entry, entry.images.get(frame));
      return;
    }
    this.turn(entry, "loading");
    entry.told = false;
    const image = await loadImage(tileUrl(this.canvas, entry.coords, frame), signal);
    if (signal.aborted) return;
    if (image) {
      image.className = "handscroll-tile";
      image.dataset.key = keyOf(entry.coords);
      entry.images.set(frame, image);
      this.present(entry, image);
    } else if (entry.told) {
      this.load(entry);
    } else {
      this.turn(entry, "pending");
    }
  },

  /** @param {Entry} entry @param {HTMLImageElement} image */
  present(entry, image) {
    // Only what comes into sight for the first time fades in.
    image.classList.toggle("next", entry.el.hasChildNodes());
    entry.el.replaceChildren(image);
    this.turn(entry, "painted");
  },

  /** @param {Entry} entry @param {TileState} state */
  turn(entry, state) {
    entry.state = state;
    this.fire("tilestate");
  },

  /**
   * @param {TileRange} range
   * @returns {{painted: number, pending: Coords[]}} how many tiles are in sight, and which wait
   */
  survey(range) {
    const entries = [...this.entries.values()].filter(({ coords }) => holdsTile(range, coords));
    return {
      painted: entries.filter(({ state }) => state === "painted").length,
      pending: entries.filter(({ state }) => state === "pending").map(({ coords }) => coords),
    };
  },
});

/** @param {number} level @returns {number} finer above coarser, with room for one thing between */
export function zIndexOf(level) {
  return 2 * level + 2;
}

/** @param {Coords} coords @returns {string} */
function keyOf({ x, y, z }) {
  return `${z}/${x}/${y}`;
}

/**
 * @param {string} url @param {AbortSignal} signal
 * @returns {Promise<HTMLImageElement|null>} decoded; null if there is none, for whatever reason:
 *     the stream of events is asked for all that is missing, and is where reasons are told
 */
async function loadImage(url, signal) {
  const image = new Image();
  image.alt = "";
  try {
    const response = await fetch(url, { signal });
    if (response.status !== 200) return null;
    image.src = URL.createObjectURL(await response.blob());
    await image.decode();
    return image;
  } catch {
    return null;
  } finally {
    if (image.src) URL.revokeObjectURL(image.src);
  }
}
