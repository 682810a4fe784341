/**
 * The gateway's worlds and canvases.
 *
 * Addresses are relative to the page, so that the viewer works under any path.
 */

/** @typedef {import("./grid.js").Extent} Extent */
/** @typedef {{name: string, canvas: string, extent: Extent}} World */
/** @typedef {{picture: string, top: number, left: number, height: number, width: number}} Known */
/** @typedef {import("./grid.js").Rectangle & {parent: string}} Branch */
/** @typedef {{id: string, world: string, seed: number, prompt: string, extent: Extent,
 *   known: Known|null, regions: object[], branch: Branch|null}} Canvas */

/** @typedef {{id: string, state: "running"|"done"|"stopped", done: number, total: number,
 *   problem: string|null}} Export */

/** An answer that says what went wrong (RFC 9457), or that none came (status 0). */
export class Problem extends Error {
  /** @param {number} status @param {string} detail @param {number|null} retry_s */
  constructor(status, detail, retry_s = null) {
    super(detail);
    this.status = status;
    this.retry_s = retry_s;
  }

  /** @returns {boolean} whether asking again later makes sense */
  get passing() {
    const full = this.status === 507; // until something is deleted
    return this.status === 0 || this.status === 429 || (this.status >= 500 && !full);
  }

  /** @returns {boolean} whether a key, or another one, would help */
  get needsKey() {
    return this.status === 401 || this.status === 403;
  }
}

/**
 * @param {unknown} body a problem object, or anything else
 * @param {number} status
 * @param {string|null} [retryAfter] the header, if one came
 * @returns {Problem}
 */
export function problemFrom(body, status, retryAfter = null) {
  const { status: stated = status, title, detail, retry_after = retryAfter } = Object(body);
  const retry_s = Number.parseFloat(retry_after);
  return new Problem(
    stated,
    String(detail ?? title ?? ""),
    Number.isFinite(retry_s) ? retry_s : null,
  );
}

/** @param {Response} response @returns {Promise<Problem>} */
export async function problemOf(response) {
  const body = await response.json().catch(() => null);
  return problemFrom(body, response.status, response.headers.get("Retry-After"));
}

/**
 * @param {string} path @param {RequestInit} [init]
 * @returns {Promise<any>} what the gateway answers
 */
async function call(path, init) {
  let response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new Problem(0, "The gateway cannot be reached.");
  }
  if (!response.ok) throw await problemOf(response);
  return response.status === 204 ? null : response.json();
}

/** @returns {Promise<World[]>} */
export async function getWorlds() {
  return (await call("worlds")).worlds;
}

/** @returns {Promise<Canvas[]>} the caller's own, newest first */
export async function listCanvases() {
  return (await call("canvases")).canvases;
}

/** @param {string} id @returns {Promise<Canvas>} */
export function getCanvas(id) {
  return call(`canvases/${id}`);
}

/**
 * @param {Blob} file a PNG, JPEG or WebP file
 * @returns {Promise<{picture: string, height: number, width: number}>} what it is called here
 */
export function uploadPicture(file) {
  return call("pictures", { method: "POST", headers: { "Content-Type": file.type }, body: file });
}

/** @returns {Promise<{picture: string}[]>} the caller's own, newest first */
export async function listPictures() {
  return (await call("pictures")).pictures;
}

/** @param {string} picture @returns {Promise<null>} */
export function deletePicture(picture) {
  return call(`pictures/${picture}`, { method: "DELETE" });
}

/** @typedef {{held: number, most: number|null}} Share */

/**
 * @returns {Promise<{canvases: Share, canvas_bytes: Share, picture_bytes: Share,
 *   export_bytes: Share}>} what the caller holds and may hold
 */
export function getUsage() {
  return call("usage");
}

/**
 * @param {{seed: number, prompt: string, world?: string, frames?: number, motion?: string,
 *   sampling?: {negative_prompt?: string, guidance?: number}, extent?: object, order?: string,
 *   known?: {picture: string}, regions?: object[], branch?: Branch}} spec a branch has its parent's
 *   world
 * @returns {Promise<Canvas>}
 */
export function createCanvas(spec) {
  const headers = { "Content-Type": "application/json" };
  return call("canvases", { method: "POST", headers, body: JSON.stringify(spec) });
}

/** @param {string} id @returns {Promise<null>} */
export function deleteCanvas(id) {
  return call(`canvases/${id}`, { method: "DELETE" });
}

/**
 * Has a cookie stand for a key from now on.
 * @param {string} key @returns {Promise<{name: string, role: string}>} whose it is, and what it may
 */
export function openSession(key) {
  return call("session", { method: "POST", headers: { Authorization: `Bearer ${key}` } });
}

/** @returns {Promise<null>} */
export function closeSession() {
  return call("session", { method: "DELETE" });
}

/**
 * @param {string} id @param {{x: number, y: number, z: number}} tile @param {number} frame
 * @returns {string}
 */
export function tileUrl(id, { x, y, z }, frame) {
  // Without waiting: the answer is the tile, or 202 when it is still to be painted.
  return `tiles/${id}/${z}/${x}/${y}.webp?wait=0${frame ? `&frame=${frame}` : ""}`;
}

/**
 * @param {string} id @param {import("./grid.js").TileRange} range
 * @param {number} frame
 * @param {boolean} ahead whether it is wanted only once nothing else is
 * @returns {string}
 */
export function eventsUrl(id, { z, left, top, right, bottom }, frame, ahead) {
  const place = `z=${z}&left=${left}&top=${top}&right=${right}&bottom=${bottom}`;
  return `canvases/${id}/events?${place}${frame ? `&frame=${frame}` : ""}${ahead ? "&ahead=1" : ""}`;
}

/**
 * @param {import("./grid.js").Region & {canvas: string, format: string, frame?: number,
 *         back_and_forth?: boolean}} wish
 * @returns {Promise<Export>} the one of this wish, which goes on if it had stopped
 */
export function createExport(wish) {
  const headers = { "Content-Type": "application/json" };
  return call("exports", { method: "POST", headers, body: JSON.stringify(wish) });
}

/** @param {string} id @returns {Promise<Export>} */
export function getExport(id) {
  return call(`exports/${id}`);
}

/** @returns {Promise<Export[]>} some of the caller's own, newest first; none when there are none */
export async function listExports() {
  return (await call("exports")).exports;
}

/** @param {string} id */
export function deleteExport(id) {
  return call(`exports/${id}`, { method: "DELETE" });
}

/** @param {string} id @returns {string} the address of its file */
export function fileOf(id) {
  return `exports/${id}/file`;
}
