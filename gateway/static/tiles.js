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
/** @typedef {"loading"|"pending"|"painted"} LookState
 *  Asked for; not painted yet; here, and in sight if its frame is. */
/** @typedef {{state: LookState, abort: AbortController, told: boolean,
 *             image: HTMLImageElement|null}} Look
 *  How a tile looks in one frame. `told` says that it was reported as painted while it was being
 *  asked for. */
/** @typedef {{coords: Coords, el: HTMLElement, looks: Map<number, Look>}} Entry
 *  A tile, with its looks by frame. */

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
    const entry = { coords, el, looks: new Map() };
    this.entries.set(keyOf(coords), entry);
    this.load(entry, this.frame);
    return el;
  },

  /**
   * Shows another frame. What is in sight stays until its successor is there, and frames that were
   * in sight, or fetched ahead, come at once.
   * @param {number} frame
   */
  setFrame(frame) {
    this.frame = frame;
    this.giveUpOthers(frame);
    for (const entry of this.entries.values()) {
      const look = entry.looks.get(frame);
      if (look?.image) this.present(entry, look.image);
      else if (!look) this.load(entry, frame);
    }
  },

  /**
   * Fetches what is there of a frame before it is shown.
   * @param {TileRange} range @param {number} frame
   */
  fetchAhead(range, frame) {
    for (const entry of this.entriesIn(range)) {
      if (!entry.looks.has(frame)) this.load(entry, frame);
    }
  },

  /** Waits no longer for tiles of other frames than one. @param {number} frame */
  giveUpOthers(frame) {
    for (const { looks } of this.entries.values()) {
      for (const [other, { image, abort }] of looks) {
        if (other === frame || image) continue;
        abort.abort();
        looks.delete(other);
      }
    }
  },

  /** @param {Coords} coords of a tile that left the window */
  forget(coords) {
    for (const { abort } of this.entries.get(keyOf(coords))?.looks.values() ?? []) abort.abort();
    this.entries.delete(keyOf(coords));
  },

  /** @param {Coords} coords of a tile that is there now @param {number} frame of it */
  tell(coords, frame) {
    const entry = this.entries.get(keyOf(coords));
    const look = entry?.looks.get(frame);
    if (!look) return;
    if (look.state === "pending") this.load(entry, frame);
    else look.told = true;
  },

  /**
   * Asks for a tile, and shows it if it is there and its frame is the one in sight.
   * @param {Entry} entry @param {number} frame
   */
  async load(entry, frame) {
    const abort = new AbortController();
    const look = { state: "loading", abort, told: false, image: null };
    entry.looks.set(frame, look);
    this.fire("tilestate");
    const image = await loadImage(tileUrl(this.canvas, entry.coords, frame), abort.signal);
    if (abort.signal.aborted) return;
    if (image) {
      image.className = "handscroll-tile";
      image.dataset.key = keyOf(entry.coords);
      Object.assign(look, { image, state: "painted" });
      if (frame === this.frame) this.present(entry, image);
      else this.fire("tilestate");
    } else if (look.told) {
      this.load(entry, frame);
    } else {
      look.state = "pending";
      this.fire("tilestate");
    }
  },

  /** @param {Entry} entry @param {HTMLImageElement} image */
  present(entry, image) {
    // Only what comes into sight for the first time fades in.
    image.classList.toggle("next", entry.el.hasChildNodes());
    entry.el.replaceChildren(image);
    this.fire("tilestate");
  },

  /** @param {TileRange} range @returns {Entry[]} */
  entriesIn(range) {
    return [...this.entries.values()].filter(({ coords }) => holdsTile(range, coords));
  },

  /**
   * @param {TileRange} range @param {number} frame
   * @returns {{painted: number, pending: Coords[]}} how many tiles are here, and which wait
   */
  survey(range, frame) {
    const entries = this.entriesIn(range);
    const are = (state) => entries.filter(({ looks }) => looks.get(frame)?.state === state);
    return { painted: are("painted").length, pending: are("pending").map(({ coords }) => coords) };
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
