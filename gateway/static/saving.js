/** Saving what is in sight as a file: the gateway makes it, we watch, and the browser fetches it. */

import {
  Problem,
  createExport,
  deleteExport,
  fileOf,
  getExport,
  getUsage,
  listExports,
} from "./canvases.js";
import { askForKey } from "./keys.js";
import { describe } from "./status.js";

/** @typedef {import("./grid.js").Region} Region */
/** @typedef {import("./canvases.js").Export} Export */

const LOOK_S = 1;
const RETRY_S = 2;
const MIB = 2 ** 20;
const number = new Intl.NumberFormat();

const form = document.getElementById("saving");
const formats = document.getElementById("save-format");
const stop = document.getElementById("save-stop");
const painted = document.getElementById("save-painted");
const said = document.getElementById("save-said");
const kept = document.getElementById("kept");
const remove = document.getElementById("kept-delete");

/** @param {number} s */
const pause = (s) => new Promise((resolve) => setTimeout(resolve, 1000 * s));

/** MP4 has even sides. @param {Region} region @returns {Region} */
function evened(region) {
  const even = (size) => Math.max(2, size - (size % 2));
  return { ...region, height: even(region.height), width: even(region.width) };
}

/** Says how much of what was saved is kept, which is held against its owner. */
async function showKept() {
  const { export_bytes: share } = await getUsage().catch(() => ({}));
  kept.hidden = !share?.held;
  if (kept.hidden) return;
  const [held, most] = [share.held, share.most].map((bytes) => number.format(Math.ceil(bytes / MIB)));
  const may = share.most === null ? "" : ` of ${most}`;
  document.getElementById("kept-told").textContent = `${held}${may} MiB of saved files are kept`;
}

export class Saving {
  /** Counts what was begun or stopped: only the last goes on. */
  #turn = 0;
  /** @type {string|null} */ #making = null;

  /** @param {() => (Region & {canvas: string})|undefined} inSight */
  constructor(inSight) {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      const region = inSight();
      if (!region) return;
      const film = formats.selectedOptions[0].hasAttribute("data-film");
      // A film is saved as it is played.
      const shown = film ? { ...evened(region), frame: 0, back_and_forth: true } : region;
      this.#save({ ...shown, format: formats.value });
    });
    stop.addEventListener("click", () => this.#cancel());
    remove.addEventListener("click", () => this.#deleteKept());
    document.getElementById("seal").addEventListener("click", showKept);
  }

  /** @param {Region & {canvas: string, format: string}} wish */
  async #save(wish) {
    const turn = ++this.#turn;
    this.#show(true);
    try {
      const made = await this.#made(wish, turn);
      if (turn !== this.#turn) return;
      if (made.state === "done") this.#fetch(made);
      else said.textContent = `It stopped: ${made.problem ?? "nobody makes it any more"}. Save again to go on.`;
    } catch (problem) {
      if (turn !== this.#turn) return;
      if (problem.needsKey) askForKey(problem, "always").then(() => this.#save(wish));
      else said.textContent = problem.message;
    }
    this.#show(false);
    showKept();
  }

  /**
   * Watches an export until it is not being made any more.
   * @param {Region & {canvas: string, format: string}} wish @param {number} turn
   * @returns {Promise<Export>}
   */
  async #made(wish, turn) {
    while (true) {
      try {
        let made = await createExport(wish);
        while (made.state === "running" && turn === this.#turn) {
          this.#making = made.id;
          painted.max = made.total;
          painted.value = made.done;
          said.textContent = `Painting: ${made.done} of ${made.total} tiles`;
          await pause(LOOK_S);
          made = await getExport(made.id);
        }
        return made;
      } catch (problem) {
        if (!(problem instanceof Problem && problem.passing) || turn !== this.#turn) throw problem;
        said.textContent = `${describe(problem)}. Trying again…`;
        await pause(problem.retry_s ?? RETRY_S);
        if (turn !== this.#turn) throw problem;
      }
    }
  }

  /** @param {Export} made */
  #fetch(made) {
    const link = document.createElement("a");
    link.href = fileOf(made.id);
    link.download = "";
    link.click();
    said.textContent = "Saved.";
  }

  async #cancel() {
    this.#turn += 1;
    this.#show(false);
    said.textContent = "Cancelled. What is painted stays.";
    const making = this.#making;
    this.#making = null;
    if (making) await deleteExport(making).catch(() => {}); // it is gone, or ends unseen
  }

  async #deleteKept() {
    remove.disabled = true;
    try {
      for (let own = await listExports(); own.length; own = await listExports()) {
        for (const { id } of own) await deleteExport(id);
      }
      said.textContent = "Deleted. What is painted stays.";
    } catch (problem) {
      said.textContent = `${describe(problem)}.`;
    }
    remove.disabled = false;
    showKept();
  }

  /** @param {boolean} busy */
  #show(busy) {
    formats.disabled = busy;
    document.getElementById("save").hidden = busy;
    stop.hidden = painted.hidden = !busy;
    if (busy) {
      said.textContent = "";
      painted.removeAttribute("value");
      stop.focus();
    }
  }
}
