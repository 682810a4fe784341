/**
 * Links to a canvas and a view: `#<canvas id>/<zoom>/<x>/<y>`, in pixels at the finest level. Of a
 * canvas that moves, `/<frame>` may follow.
 */

/** @typedef {import("./grid.js").View} View */
/** @typedef {{canvas: string, view: View|null, frame: number}} Link */

const LINK = /^#?([0-9a-f]{64})(?:\/(\d+(?:\.\d+)?)\/(-?\d+)\/(-?\d+)(?:\/(\d+))?)?\/?$/;

/**
 * @param {string} hash
 * @returns {Link|null} null where the hash is no link
 */
export function parseLink(hash) {
  const found = LINK.exec(hash);
  if (!found) return null;
  const [, canvas, zoom, x, y, frame = 0] = found;
  return {
    canvas,
    view: zoom === undefined ? null : { zoom: Number(zoom), x: Number(x), y: Number(y) },
    frame: Number(frame),
  };
}

/**
 * @param {string} canvas @param {View} [view] @param {number} [frame]
 * @returns {string}
 */
export function formatLink(canvas, view, frame = 0) {
  if (!view) return `#${canvas}`;
  const place = [Number(view.zoom.toFixed(2)), Math.round(view.x), Math.round(view.y)];
  return `#${[canvas, ...place, ...(frame ? [frame] : [])].join("/")}`;
}
