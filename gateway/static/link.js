/**
 * Links to a canvas and a view: `#<canvas id>/<zoom>/<x>/<y>`, in pixels at the finest level.
 */

/** @typedef {import("./grid.js").View} View */
/** @typedef {{canvas: string, view: View|null}} Link */

const LINK = /^#?([0-9a-f]{64})(?:\/(\d+(?:\.\d+)?)\/(-?\d+)\/(-?\d+))?\/?$/;

/**
 * @param {string} hash
 * @returns {Link|null} null where the hash is no link
 */
export function parseLink(hash) {
  const found = LINK.exec(hash);
  if (!found) return null;
  const [, canvas, zoom, x, y] = found;
  return {
    canvas,
    view: zoom === undefined ? null : { zoom: Number(zoom), x: Number(x), y: Number(y) },
  };
}

/**
 * @param {string} canvas @param {View} [view]
 * @returns {string}
 */
export function formatLink(canvas, view) {
  if (!view) return `#${canvas}`;
  return `#${canvas}/${Number(view.zoom.toFixed(2))}/${Math.round(view.x)}/${Math.round(view.y)}`;
}
