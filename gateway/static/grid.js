/**
 * Where things are: levels, tiles and pixels of a canvas beside Leaflet's zooms and coordinates.
 *
 * A canvas lies on the Web-Mercator grid with its tile (row 0, col 0) in the middle of the world,
 * so there is room to all sides: level l is zoom 14 + l. Mirrors `handscroll/geometry.py`.
 */

const { CRS, LatLngBounds, Point } = window.L;

/** @typedef {{kind: "scroll"|"plane"|"picture", finest: number,
 *             height_px: number|null, width_px: number|null}} Extent
 *  What a canvas covers; sizes are at the finest level, null where endless. */
/** @typedef {{z: number, left: number, top: number, right: number, bottom: number}} TileRange
 *  A rectangle of tiles, all four sides inclusive. */
/** @typedef {{level: number, top: number, left: number, height: number, width: number}} Region
 *  A rectangle of pixels of one level. */
/** @typedef {{top: number, left: number, height: number, width: number}} Rectangle
 *  A rectangle of pixels of the finest level. */
/** @typedef {{zoom: number, x: number, y: number}} View
 *  What is looked at: a zoom, and the middle in canvas pixels at the finest level. */

export const ROOT_ZOOM = 14;
export const TILE_PX = 256;

/** Pixels to a token's side, at each level. */
export const TOKEN_PX = 16;

/** Zooms beyond the finest level that may be looked at, scaled up. */
const OVERZOOM = 2;

/** Tiles begin a third of a level-0 patch into the canvas, along every axis that has no end. */
const SHIFT_PX = 85;

/** @param {Extent} extent @returns {number} the zoom of the finest level */
export function finestZoom(extent) {
  return ROOT_ZOOM + extent.finest;
}

/** @param {number} zoom @returns {number} the column and row of tile (0, 0) at a zoom */
function middle(zoom) {
  return 2 ** (zoom - 1);
}

/**
 * The tiles of a canvas at a zoom: along an endless side, as far as the world reaches.
 * @param {Extent} extent @param {number} z @returns {TileRange}
 */
export function extentTiles(extent, z) {
  const tile_px = TILE_PX * 2 ** (finestZoom(extent) - z);
  const side = (size_px) =>
    size_px === null ? [0, 2 ** z - 1] : [middle(z), middle(z) + Math.ceil(size_px / tile_px) - 1];
  const [left, right] = side(extent.width_px);
  const [top, bottom] = side(extent.height_px);
  return { z, left, top, right, bottom };
}

/**
 * The tiles that two rectangles share, or null where there are none.
 * @param {TileRange} one @param {TileRange} other @returns {TileRange|null}
 */
export function commonTiles(one, other) {
  const left = Math.max(one.left, other.left);
  const top = Math.max(one.top, other.top);
  const right = Math.min(one.right, other.right);
  const bottom = Math.min(one.bottom, other.bottom);
  return left > right || top > bottom ? null : { z: one.z, left, top, right, bottom };
}

/** @param {TileRange} range @returns {number} how many tiles it holds */
export function countTiles({ left, top, right, bottom }) {
  return (right - left + 1) * (bottom - top + 1);
}

/** @param {TileRange} range @param {{x: number, y: number}} tile @returns {boolean} */
export function holdsTile({ left, top, right, bottom }, { x, y }) {
  return left <= x && x <= right && top <= y && y <= bottom;
}

/**
 * Cuts a rectangle into parts of at most `most` tiles.
 * @param {TileRange} range @param {number} most @returns {TileRange[]}
 */
export function splitTiles(range, most) {
  if (countTiles(range) <= most) return [range];
  const { left, top, right, bottom } = range;
  const halves =
    right - left >= bottom - top
      ? [
          { ...range, right: (left + right) >> 1 },
          { ...range, left: ((left + right) >> 1) + 1 },
        ]
      : [
          { ...range, bottom: (top + bottom) >> 1 },
          { ...range, top: ((top + bottom) >> 1) + 1 },
        ];
  return halves.flatMap((half) => splitTiles(half, most));
}

/**
 * How far a tile's lower and right sides reach beyond the canvas, as parts of a tile.
 * @param {Extent} extent @param {{x: number, y: number, z: number}} tile
 * @returns {{right: number, bottom: number}}
 */
export function beyond(extent, { x, y, z }) {
  const tile_px = TILE_PX * 2 ** (finestZoom(extent) - z);
  const over = (size_px, index) =>
    size_px === null ? 0 : Math.max(0, index - middle(z) + 1 - size_px / tile_px);
  return { right: over(extent.width_px, x), bottom: over(extent.height_px, y) };
}

/** @param {Extent} extent @returns {L.Point} canvas pixel (0, 0) as seen from tile (0, 0) */
function shift(extent) {
  const along = (size_px) => (size_px === null ? SHIFT_PX * 2 ** extent.finest : 0);
  return new Point(along(extent.width_px), along(extent.height_px));
}

/**
 * @param {Extent} extent @param {L.LatLng} latlng
 * @returns {{x: number, y: number}} canvas pixels
 */
export function toPixel(extent, latlng) {
  const origin_px = middle(finestZoom(extent)) * TILE_PX;
  return CRS.EPSG3857.latLngToPoint(latlng, finestZoom(extent))
    .subtract([origin_px, origin_px])
    .add(shift(extent));
}

/**
 * The part of a canvas that lies in bounds, in pixels of the level nearest to a zoom.
 * @param {Extent} extent @param {L.LatLngBounds} bounds @param {number} zoom
 * @returns {Region}
 */
export function regionOf(extent, bounds, zoom) {
  const level = Math.min(extent.finest, Math.max(0, Math.round(zoom) - ROOT_ZOOM));
  const scale = 2 ** (extent.finest - level);
  const along = (from, to, size_px) => {
    const start = Math.max(size_px === null ? -Infinity : 0, Math.round(from / scale));
    const end = Math.min(size_px === null ? Infinity : size_px / scale, Math.round(to / scale));
    return [start, Math.max(1, end - start)];
  };
  const first = toPixel(extent, bounds.getNorthWest());
  const last = toPixel(extent, bounds.getSouthEast());
  const [top, height] = along(first.y, last.y, extent.height_px);
  const [left, width] = along(first.x, last.x, extent.width_px);
  return { level, top, left, height, width };
}

/**
 * The least rectangle of whole tokens of all levels around two places of a canvas.
 * @param {Extent} extent @param {{x: number, y: number}} one @param {{x: number, y: number}} other
 * @param {number} most_px how long its sides may be
 * @returns {Rectangle|null} null where none of it lies in the canvas
 */
export function snapped(extent, one, other, most_px) {
  const step = TOKEN_PX * 2 ** extent.finest;
  const along = (from, to, size_px) => {
    const inside = (place) => Math.min(size_px ?? Infinity, Math.max(size_px === null ? -Infinity : 0, place));
    const start = inside(step * Math.floor(Math.min(from, to) / step));
    const end = inside(step * Math.ceil(Math.max(from, to) / step));
    return [start, Math.min(most_px, end - start)];
  };
  const [top, height] = along(one.y, other.y, extent.height_px);
  const [left, width] = along(one.x, other.x, extent.width_px);
  return height && width ? { top, left, height, width } : null;
}

/** @param {Extent} extent @param {{x: number, y: number}} pixel @returns {L.LatLng} */
export function toLatLng(extent, { x, y }) {
  const origin_px = middle(finestZoom(extent)) * TILE_PX;
  const point = new Point(x, y).subtract(shift(extent)).add([origin_px, origin_px]);
  return CRS.EPSG3857.pointToLatLng(point, finestZoom(extent));
}

/** @param {Extent} extent @returns {L.LatLngBounds} the canvas, as far as the world reaches */
export function extentBounds(extent) {
  const far_px = middle(finestZoom(extent)) * TILE_PX;
  const { x, y } = shift(extent);
  const side = (size_px, start) =>
    size_px === null ? [start - far_px, start + far_px] : [0, size_px];
  const [left, right] = side(extent.width_px, x);
  const [top, bottom] = side(extent.height_px, y);
  return new LatLngBounds(
    toLatLng(extent, { x: left, y: bottom }),
    toLatLng(extent, { x: right, y: top }),
  );
}

/**
 * The zoom at which a canvas with a height or a width fills the window, or null for a plane.
 * Rounded up to what a link holds, so that a link leaves no gap either.
 * @param {Extent} extent @param {L.Point} size_px of the window @returns {number|null}
 */
export function coverZoom(extent, size_px) {
  const scales = [
    ...(extent.height_px === null ? [] : [size_px.y / extent.height_px]),
    ...(extent.width_px === null ? [] : [size_px.x / extent.width_px]),
  ];
  if (!scales.length) return null;
  return Math.max(
    ROOT_ZOOM,
    Math.ceil((finestZoom(extent) + Math.log2(Math.max(...scales))) * 100) / 100,
  );
}

/**
 * @param {Extent} extent @param {L.Point} size_px of the window
 * @returns {number} the largest zoom
 */
export function maxZoom(extent, size_px) {
  return Math.max(finestZoom(extent) + OVERZOOM, Math.ceil(coverZoom(extent, size_px) ?? 0) + 1);
}

/**
 * Where a canvas opens: a scroll or picture fills the window, a plane shows a little more than one
 * would see at full size.
 * @param {Extent} extent @param {L.Point} size_px of the window @returns {View}
 */
export function homeView(extent, size_px) {
  return {
    zoom: coverZoom(extent, size_px) ?? Math.max(ROOT_ZOOM, finestZoom(extent) - 1),
    x: (extent.width_px ?? 0) / 2,
    y: (extent.height_px ?? 0) / 2,
  };
}
