/** The panel: about the canvas in sight, a form for a new one, and the list of one's own. */

import { fitted, framed, sizesOf } from "./around.js";
import {
  createCanvas,
  deleteCanvas,
  deletePicture,
  getCanvas,
  getUsage,
  listCanvases,
  listPictures,
  uploadPicture,
} from "./canvases.js";
import { byId, element, icon } from "./elements.js";
import { ROOT_ZOOM } from "./grid.js";
import { askForKey } from "./keys.js";
import { formatLink } from "./link.js";
import { Regions, checkSeen } from "./regions.js";
import { describe } from "./status.js";

/** @typedef {import("./canvases.js").Canvas} Canvas */
/** @typedef {import("./canvases.js").Share} Share */
/** @typedef {import("./canvases.js").World} World */
/** @typedef {import("./grid.js").View} View */

/** Words that move something, by world; what is followed best comes first. */
const MOTIONS = {
  scroll: ["the camera moves right", "clouds drift left", "clouds drift right", "waves roll"],
  planet: ["the camera moves up", "the camera moves right"],
};
/** The counter of the prompt appears at this many characters before its limit. */
const NEAR_LIMIT = 200;
/** Seeds from the dice: short enough to read out. */
const DICE_SEEDS = 1_000_000;
const COPIED_MS = 2000;
const MIB = 2 ** 20;

const number = new Intl.NumberFormat();

/** @param {{prompt: string, world: string}} canvas @returns {string} */
export function titleOf({ prompt, world }) {
  return prompt || `Untitled ${world}`;
}

/** @param {Canvas} canvas @returns {string} */
function aboutOf({ world, seed, motion, branch }) {
  const about = [world, `seed ${seed}`, motion, branch && "repainted"];
  return about.filter(Boolean).join(" · ");
}

/**
 * @param {Canvas} canvas that was made @param {Canvas|null} seen in sight before @param {View} [view]
 *     of that
 * @returns {View|undefined} the picture it is painted around, or where its regions were marked, if
 *     any; one with an end fills the window instead
 */
function placeOf({ world, extent, known, regions }, seen, view) {
  if (extent.kind === "picture") return undefined;
  if (!known) return regions.length && world === seen?.world ? view : undefined;
  const { top, left, height, width } = known;
  return { zoom: ROOT_ZOOM + extent.finest, x: left + width / 2, y: top + height / 2 };
}

/** @param {Share} share @param {string} what @param {number} [unit] @returns {string} */
function bounded({ held, most }, what, unit = 1) {
  const [has, may] = [held, most].map((count) => number.format(Math.ceil(count / unit)));
  return most === null ? "" : `${has} of ${may} ${what}`;
}

export class Panel {
  /** @type {Canvas|null} */ #canvas = null;
  /** @type {Canvas[]} */ #own = [];
  /** @type {View|undefined} */ #view;
  /** @type {Set<string>} */ #pictures = new Set();
  /** @type {World[]} */ #worlds = [];

  /**
   * @param {InstanceType<typeof import("./marking.js").Marking>} marking
   * @param {{deleted: (canvas: Canvas) => void}} events
   */
  constructor(marking, events) {
    this.marking = marking;
    this.events = events;
    this.regions = new Regions(marking, (open) => this.toggle(open));
    this.root = byId("panel");
    this.button = byId("seal");
    this.button.addEventListener("click", () => this.toggle());
    byId("close").addEventListener("click", () => this.toggle(false));
    this.root.addEventListener("click", ({ target }) => {
      if (target.closest("a")) this.#makeRoom();
    });
    document.addEventListener("keydown", ({ key }) => {
      if (key === "Escape" && !this.root.hidden) this.toggle(false);
    });
    byId("copy").addEventListener("click", () => this.#copyLink());
    byId("dice").addEventListener("click", () => this.#roll());
    byId("prompt").addEventListener("input", () => this.#count());
    byId("picture").addEventListener("change", () => this.#choosePicture());
    byId("ended").addEventListener("change", ({ target }) => (byId("size").disabled = !target.checked));
    byId("worlds").addEventListener("change", () => this.#chooseWorld());
    // A browser says what is wrong with a field only where that is in sight.
    byId("finer").addEventListener("invalid", () => (byId("finer").open = true), true);
    byId("new").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#create();
    });
    byId("animate").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#animate();
    });
    this.#roll();
  }

  /** @param {World[]} worlds */
  setWorlds(worlds) {
    this.#worlds = worlds;
    byId("worlds").replaceChildren(
      ...worlds.map(({ name }) =>
        element(
          "label",
          { className: "choice" },
          element("input", { type: "radio", name: "world", value: name, required: true }),
          element("span", {}, name),
        ),
      ),
    );
    byId("homes").replaceChildren(
      ...worlds.map(({ name, canvas }) =>
        element("a", { href: formatLink(canvas) }, `First ${name}`),
      ),
    );
  }

  /** @param {Canvas} canvas the one in sight */
  setCanvas(canvas) {
    this.#canvas = canvas;
    byId("title").textContent = titleOf(canvas);
    byId("about").textContent = aboutOf(canvas);
    byId("branch").hidden = !canvas.branch;
    for (const choice of this.root.querySelectorAll("[name=world]")) {
      choice.checked = choice.value === canvas.world;
    }
    this.#chooseWorld();
    const still = canvas.frames === 1;
    byId("animate").hidden = !still;
    byId("motions").replaceChildren(
      ...(MOTIONS[canvas.world] ?? []).map((value) => element("option", { value })),
    );
    byId("motion").placeholder = MOTIONS[canvas.world]?.[0] ?? "";
    for (const film of this.root.querySelectorAll("[data-film]")) film.hidden = still;
    if (still && byId("save-format").selectedOptions[0].hidden) byId("save-format").value = "png";
    this.#listOwn();
  }

  /** @param {View} view @param {number} frame */
  setView(view, frame) {
    this.#view = view;
    const { zoom, x, y } = view;
    const { branch } = this.#canvas ?? {};
    if (branch) byId("undo").href = formatLink(branch.parent, view, frame);
    byId("place").textContent = `${number.format(Math.round(x))}, ${number.format(Math.round(y))}`;
    byId("zoom").textContent = zoom.toFixed(1);
  }

  /** @param {boolean} [open] */
  toggle(open = this.root.hidden) {
    this.root.hidden = !open;
    this.button.setAttribute("aria-expanded", String(open));
    if (!open) {
      this.button.focus();
      return;
    }
    this.marking.close();
    byId("close").focus();
    this.#loadOwn();
  }

  async #loadOwn() {
    try {
      const asked = [listCanvases(), listPictures(), getUsage().catch(() => null)];
      const [own, pictures, usage] = await Promise.all(asked);
      this.#own = own;
      this.#pictures = new Set(pictures.map(({ picture }) => picture));
      const held = !usage ? [] : [
        bounded(usage.canvases, "canvases"),
        bounded(usage.canvas_bytes, "MiB painted", MIB),
        bounded(usage.picture_bytes, "MiB of pictures", MIB),
      ];
      byId("held").textContent = held.filter(Boolean).join(" · ");
      this.#listOwn();
    } catch (problem) {
      byId("own").replaceChildren(element("li", { className: "note" }, `${describe(problem)}.`));
    }
  }

  #listOwn() {
    byId("mine").hidden = !this.#own.length;
    byId("own").replaceChildren(...this.#own.map((canvas) => this.#row(canvas)));
  }

  /** @param {Canvas} canvas @returns {HTMLLIElement} */
  #row(canvas) {
    const link = element(
      "a",
      { href: formatLink(canvas.id) },
      element("span", { className: "name" }, titleOf(canvas)),
      element(
        "span",
        { className: "note" },
        aboutOf(canvas),
      ),
    );
    if (canvas.id === this.#canvas?.id) link.setAttribute("aria-current", "true");
    const remove = element(
      "button",
      { type: "button", className: "plain", title: "Delete" },
      icon("delete"),
    );
    remove.setAttribute("aria-label", `Delete ${titleOf(canvas)}`);
    const row = element("li", {}, link, remove);
    remove.addEventListener("click", () => this.#confirmDelete(row, canvas));
    return row;
  }

  /** @param {HTMLLIElement} row @param {Canvas} canvas */
  #confirmDelete(row, canvas) {
    const picture = this.#pictureOnlyOf(canvas);
    const keep = element("button", { type: "button", className: "small" }, "Keep");
    const remove = element("button", { type: "button", className: "small danger" }, "Delete");
    const before = [...row.children];
    row.replaceChildren(
      element(
        "span",
        { className: "name" },
        picture ? "Delete this canvas and its picture?" : "Delete this canvas?",
      ),
      keep,
      remove,
    );
    keep.focus();
    keep.addEventListener("click", () => {
      row.replaceChildren(...before);
      before.at(-1).focus();
    });
    remove.addEventListener("click", async () => {
      remove.disabled = true;
      try {
        await deleteCanvas(canvas.id);
        // Others may stand on it as well; then it stays.
        if (picture) await deletePicture(picture).catch(() => {});
      } catch (problem) {
        row.replaceChildren(...before);
        const why =
          problem.status === 409
            ? "What was repainted of it must be deleted first."
            : `${describe(problem)}.`;
        row.append(element("span", { className: "error" }, why));
        return;
      }
      this.#own = this.#own.filter(({ id }) => id !== canvas.id);
      this.#listOwn();
      this.#loadOwn();
      byId("close").focus();
      this.events.deleted(canvas);
    });
  }

  /** @param {Canvas} canvas @returns {string|undefined} a picture of one's own, for no other */
  #pictureOnlyOf({ id, known }) {
    const { picture } = known ?? {};
    const others = this.#own.some((one) => one.id !== id && one.known?.picture === picture);
    return this.#pictures.has(picture) && !others ? picture : undefined;
  }

  async #create() {
    const { world, prompt, negative, guidance, seed, moves, frames, ...size } = Object.fromEntries(
      new FormData(byId("new")),
    );
    const sampling = {
      ...(negative.trim() && { negative_prompt: negative.trim() }),
      ...(guidance && { guidance: Number(guidance) }),
    };
    await this.#make(byId("new"), async () => {
      const regions = this.regions.spec();
      const covered = await this.#covered(size);
      checkSeen(regions, covered.extent);
      const canvas = await createCanvas({
        world,
        seed: Number(seed),
        prompt: prompt.trim(),
        ...(moves.trim() && { motion: moves.trim(), frames: Number(frames) }),
        ...(Object.keys(sampling).length && { sampling }),
        regions,
        ...covered,
      });
      byId("picture").value = "";
      this.#choosePicture();
      this.#roll();
      return formatLink(canvas.id, placeOf(canvas, this.#canvas, this.#view));
    });
  }

  /** The same canvas, which begins as it is and then moves. */
  async #animate() {
    const moves = {
      motion: byId("motion").value.trim(),
      frames: Number(byId("motion-frames").value),
    };
    await this.#make(byId("animate"), async () => {
      const canvas = await this.#moving(this.#canvas, moves);
      byId("motion").value = "";
      return formatLink(canvas.id, this.#view);
    });
  }

  /**
   * A branch has as many frames as what it was branched from, so that is made to move as well.
   * @param {Canvas} canvas @param {{motion: string, frames: number}} moves
   * @returns {Promise<Canvas>}
   */
  async #moving({ id, tilejson, ...spec }, moves) {
    if (spec.branch) {
      const parent = await this.#moving(await getCanvas(spec.branch.parent), moves);
      spec.branch = { ...spec.branch, parent: parent.id };
    }
    return createCanvas({ ...spec, ...moves });
  }

  /**
   * Makes a canvas for a form, and goes there.
   * @param {HTMLFormElement} form @param {() => Promise<string>} make the link to it
   */
  async #make(form, make) {
    const error = form.querySelector(".error");
    const button = form.querySelector("[type=submit]");
    error.textContent = "";
    button.disabled = true;
    try {
      location.hash = await make();
      this.#makeRoom();
      if (!this.root.hidden) await this.#loadOwn();
    } catch (problem) {
      if (problem.needsKey) askForKey(problem, "always").then(() => this.#make(form, make));
      else error.textContent = problem.passing
        ? `${describe(problem)}. Please try again.`
        : problem.message;
    } finally {
      button.disabled = false;
    }
  }

  /**
   * @param {{width?: string, height?: string, order?: string}} size and order of a canvas that has an
   *     end on all sides
   * @returns {Promise<object>} what it covers, and what is given of it, as a canvas' spec has it
   */
  async #covered({ width, height, order }) {
    const [file] = byId("picture").files;
    const { extent } = this.#world();
    const given = file && (await uploadPicture(await fitted(file, extent)));
    if (!order) return given ? { known: { picture: given.picture } } : {};
    return { order, ...framed(extent, { width: Number(width), height: Number(height) }, given) };
  }

  /** @returns {World|undefined} that is chosen for a new canvas; the one in sight may be of none */
  #world() {
    const world = new FormData(byId("new")).get("world");
    return this.#worlds.find(({ name }) => name === world);
  }

  /** A world is chosen: that of the picture in sight, unless somebody chooses another. */
  #chooseWorld() {
    const world = this.#world();
    if (!world) return;
    this.regions.setWorlds(world.name, this.#canvas?.world);
    this.#offerSizes(world);
  }

  /** A picture is chosen, or none any more: around one, what has an end is painted ring by ring. */
  #choosePicture() {
    byId("order").value = byId("picture").files.length ? "outward" : "lattice";
    const world = this.#world();
    if (world) this.#offerSizes(world);
  }

  /** @param {World} world */
  #offerSizes({ extent }) {
    const { step, least, most, usual } = sizesOf(extent);
    const around = byId("picture").files.length > 0;
    for (const side of ["width", "height"]) {
      const placeholder = around ? "twice" : String(usual[side]);
      Object.assign(byId(side), { step, min: least[side], max: most[side], placeholder });
    }
  }

  /** Where the panel lies over the picture, it goes once a picture was chosen. */
  #makeRoom() {
    if (matchMedia("(max-width: 640px)").matches) this.toggle(false);
  }

  #roll() {
    byId("seed").value = String(Math.floor(Math.random() * DICE_SEEDS));
  }

  #count() {
    const { value, maxLength } = byId("prompt");
    const near = value.length >= maxLength - NEAR_LIMIT;
    byId("counter").textContent = near
      ? `${number.format(value.length)} of ${number.format(maxLength)}`
      : "";
  }

  async #copyLink() {
    const label = byId("copy-label");
    try {
      await navigator.clipboard.writeText(location.href);
      label.textContent = "Copied";
    } catch {
      // Without https there is no clipboard; the address bar holds the same link.
      label.textContent = "Copy it from the address bar";
    }
    setTimeout(() => (label.textContent = "Copy link"), COPIED_MS);
  }
}
