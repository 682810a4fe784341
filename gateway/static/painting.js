/**
 * What is asked to be painted, and when: what is in the window, coarse levels first, then a margin;
 * of a film that plays, the next frame instead of a margin.
 *
 * The gateway paints exactly what somebody listens for. So there is one stream of events at a
 * time, for one rectangle of tiles of one level; when the window moves on, the next stream is
 * opened before the last is closed, so that work which both want goes on.
 */

import { eventsUrl } from "./canvases.js";
import { listen } from "./events.js";
import { countTiles, holdsTile, splitTiles } from "./grid.js";

/** @typedef {import("./canvases.js").Problem} Problem */
/** @typedef {import("./grid.js").TileRange} TileRange */
/** @typedef {{range: TileRange, frame: number, ahead: boolean}} Wish */
/** @typedef {{url: string, frame: number, stop: () => void}} Stream */
/** @typedef {object} Reports
 *  @property {(painted: number, of: number) => void} progress tiles in the window
 *  @property {(problem: Problem, retry_s: number) => void} trouble
 *  @property {() => void} recovered
 *  @property {(problem: Problem) => void} refused for good
 */

/** The most tiles the gateway takes in one request. */
const MOST_TILES = 256;
/** While the window moves, ask when it rests this long, or has moved without rest this long. */
const REST_MS = 150;
const RESTLESS_MS = 600;
const LONGEST_RETRY_S = 15;
/** Before a rectangle that was reported done is asked for again, for a tile lost meanwhile. */
const AGAIN_MS = 2000;

export class Painting {
  /** @type {Stream|null} */ #stream = null;
  /** @type {Stream[]} */ #leaving = [];
  /** @type {{url: string, at: number}|null} */ #finished = null;
  /** The frame in sight. */
  #shownFrame = 0;
  /** @type {number|null} the frame that comes after it, if one does */ #nextFrame = null;
  #troubles = 0;
  #restTimer = 0;
  #restlessTimer = 0;
  #retryTimer = 0;
  #frame = 0;

  /**
   * @param {L.Map} map
   * @param {InstanceType<typeof import("./tiles.js").Tiles>[]} layers coarse to fine
   * @param {string} canvas its id
   * @param {number} frame in sight
   * @param {Reports} reports
   */
  constructor(map, layers, canvas, frame, reports) {
    this.map = map;
    this.layers = layers;
    this.canvas = canvas;
    this.#shownFrame = frame;
    this.reports = reports;
    map.on("move zoomend resize", this.#moved, this);
    for (const layer of layers) layer.on("tilestate", this.#changed, this);
    window.addEventListener("online", this.retry);
    this.#changed();
  }

  /** Stops for good. */
  stop() {
    this.map.off("move zoomend resize", this.#moved, this);
    for (const layer of this.layers) layer.off("tilestate", this.#changed, this);
    window.removeEventListener("online", this.retry);
    for (const timer of [this.#restTimer, this.#restlessTimer, this.#retryTimer])
      clearTimeout(timer);
    cancelAnimationFrame(this.#frame);
    this.#stream?.stop();
    this.#retire();
  }

  /** Tries again at once, after trouble. */
  retry = () => {
    clearTimeout(this.#retryTimer);
    this.#retryTimer = 0;
    this.#ask();
  };

  /** @param {number} frame @param {number|null} next that comes after it, if one does */
  setFrame(frame, next) {
    if (frame !== this.#shownFrame) {
      this.#shownFrame = frame;
      for (const layer of this.layers) layer.setFrame(frame);
    }
    if (next !== this.#nextFrame) this.#forgetNext();
    this.#nextFrame = next;
    this.#changed();
  }

  /** Asks for the next frame no more: it will not be seen, or other tiles of it. */
  #forgetNext() {
    if (this.#nextFrame === null) return;
    this.#nextFrame = null;
    for (const layer of this.layers) layer.giveUpOthers(this.#shownFrame);
    if (this.#stream && this.#stream.frame !== this.#shownFrame) {
      this.#replace(null);
      this.#retire();
    }
  }

  #moved() {
    this.#forgetNext();
    clearTimeout(this.#restTimer);
    this.#restTimer = setTimeout(() => this.#ask(), REST_MS);
    this.#restlessTimer ||= setTimeout(() => this.#ask(), RESTLESS_MS);
    this.#changed();
  }

  /** Many tiles change at a time; once a frame is enough to look at them. */
  #changed() {
    this.#frame ||= requestAnimationFrame(() => {
      this.#frame = 0;
      this.#report();
      // While the window moves, a timer is running that will ask.
      if (!this.#restTimer) this.#ask();
    });
  }

  /** The layers in sight with what of them is in the window, coarse to fine. @param {number} frame */
  #shown(frame) {
    return this.layers
      .filter((layer) => layer.isShown())
      .map((layer) => ({ layer, range: layer.windowTiles() }))
      .filter(({ range }) => range)
      .map(({ layer, range }) => ({
        layer,
        range,
        of: countTiles(range),
        ...layer.survey(range, frame),
      }));
  }

  #report() {
    const shown = this.#shown(this.#shownFrame);
    const finest = shown.at(-1);
    if (!finest) return;
    // Once the finest level covers the window, what is missing beneath it does not matter.
    const covered = finest.painted === finest.of;
    if (covered) this.#recover();
    const counted = covered ? [finest] : shown;
    const sum = (value) => counted.reduce((total, level) => total + value(level), 0);
    this.reports.progress(
      sum(({ painted }) => painted),
      sum(({ of }) => of),
    );
  }

  /** @returns {Wish|null|undefined} null: nothing; undefined: not to be said yet */
  #wish() {
    const [frame, next] = [this.#shownFrame, this.#nextFrame];
    const shown = this.#shown(frame);
    const finest = shown.at(-1);
    if (!finest) return null;
    const missing = this.#missing(shown, frame, false);
    if (missing !== null) return missing;
    if (next !== null) {
      // Who looks at one frame after another stays where they are, and needs no margin.
      for (const { layer, range } of shown) layer.fetchAhead(range, next);
      return this.#missing(this.#shown(next), next, true);
    }
    const margin = finest.layer.windowTiles(1);
    return countTiles(margin) <= MOST_TILES ? { range: margin, frame, ahead: true } : null;
  }

  /** @returns {Wish|null|undefined} what of a frame is still to be painted, as for `#wish` */
  #missing(shown, frame, ahead) {
    const finest = shown.at(-1);
    if (finest.pending.length) {
      const { range, pending } = shown.find((level) => level.pending.length);
      const parts = splitTiles(range, MOST_TILES);
      const part = parts.find((one) => pending.some((tile) => holdsTile(one, tile)));
      return { range: part, frame, ahead };
    }
    return finest.painted < finest.of ? undefined : null;
  }

  #ask() {
    clearTimeout(this.#restTimer);
    clearTimeout(this.#restlessTimer);
    this.#restTimer = this.#restlessTimer = 0;
    if (this.#retryTimer) return;
    const wish = this.#wish();
    if (wish === undefined) return;
    if (wish === null) {
      this.#replace(null);
      this.#retire();
      return;
    }
    const url = eventsUrl(this.canvas, wish.range, wish.frame, wish.ahead);
    if (url === this.#stream?.url) return;
    if (url === this.#finished?.url) {
      const left_ms = this.#finished.at + AGAIN_MS - performance.now();
      if (!wish.ahead && left_ms > 0) this.#restTimer = setTimeout(() => this.#ask(), left_ms);
      if (wish.ahead || left_ms > 0) return;
    }
    this.#open(url, wish);
  }

  /** @param {string} url @param {Wish} wish */
  #open(url, { range, frame, ahead }) {
    const layer = this.layers.find(({ zoom }) => zoom === range.z);
    const stop = listen(url, {
      opened: () => this.#retire(),
      tile: (tile) => {
        layer.tell(tile, frame);
        this.#recover();
      },
      done: () => {
        this.#finished = { url, at: performance.now() };
        this.#recover();
        this.#end();
      },
      problem: (problem) => this.#fail(problem, ahead),
    });
    this.#replace({ url, frame, stop });
  }

  /** @param {Stream|null} next the old stream stays open until this one is, but no older one */
  #replace(next) {
    this.#retire();
    if (this.#stream) this.#leaving.push(this.#stream);
    this.#stream = next;
  }

  #retire() {
    for (const { stop } of this.#leaving.splice(0)) stop();
  }

  #end() {
    this.#retire();
    this.#stream = null;
    this.#changed();
  }

  #recover() {
    if (this.#troubles) this.reports.recovered();
    this.#troubles = 0;
    clearTimeout(this.#retryTimer);
    this.#retryTimer = 0;
  }

  /** @param {Problem} problem @param {boolean} ahead */
  #fail(problem, ahead) {
    this.#stream = null;
    this.#retire();
    // Nobody waits for it: a margin is asked for again when the window moves, a frame once shown.
    if (ahead) return;
    if (!problem.passing) {
      this.reports.refused(problem);
      return;
    }
    const retry_s = problem.retry_s ?? Math.min(LONGEST_RETRY_S, 2 ** this.#troubles);
    this.#troubles += 1;
    this.reports.trouble(problem, retry_s);
    this.#retryTimer = setTimeout(this.retry, 1000 * retry_s);
  }
}
