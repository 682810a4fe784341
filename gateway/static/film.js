/** The bar under a canvas that moves: plays it forth and back, or shows the frame one picks. */

/** Frames a second. */
const FPS = 8;

const bar = document.getElementById("film");
const play = document.getElementById("play");
const slider = document.getElementById("frame");
const told = document.getElementById("frame-told");

export class Film {
  #playing = false;
  #forth = true;
  #ready = false;
  #timer = 0;
  #shownAt = 0;
  #frame = 0;

  /**
   * @param {number} frames
   * @param {number} frame the one to begin with
   * @param {(frame: number, next: number|null) => void} show with the one to have ready after it
   */
  constructor(frames, frame, show) {
    this.frames = frames;
    this.show = show;
    bar.hidden = frames < 2;
    if (bar.hidden) return;
    slider.max = String(frames - 1);
    play.addEventListener("click", this.#toggle);
    slider.addEventListener("input", this.#pick);
    this.#go(frame);
    this.#mark();
  }

  /** Plays no more, and shows a frame; the last if there are fewer. @param {number} frame */
  open(frame) {
    if (this.#playing) this.#toggle();
    this.#go(Math.min(frame, this.frames - 1));
  }

  /** Takes the bar away. */
  remove() {
    this.#playing = false;
    clearTimeout(this.#timer);
    play.removeEventListener("click", this.#toggle);
    slider.removeEventListener("input", this.#pick);
    bar.hidden = true;
  }

  /** @param {boolean} ready whether all of this frame that is in the window is in sight */
  ready(ready) {
    this.#ready = ready;
    if (this.#playing && ready) this.#schedule();
  }

  #toggle = () => {
    this.#playing = !this.#playing;
    this.#mark();
    clearTimeout(this.#timer);
    this.#timer = 0;
    this.show(this.#frame, this.#playing ? this.#after(this.#frame) : null);
    if (this.#playing && this.#ready) this.#schedule();
  };

  /** Whoever picks a frame often picks the one beyond it next. */
  #pick = () => {
    const frame = Number(slider.value);
    const next = frame + Math.sign(frame - this.#frame);
    this.open(frame);
    if (0 <= next && next < this.frames) this.show(frame, next);
  };

  /** The next frame comes when this one has been in sight for its time. */
  #schedule() {
    const left_ms = this.#shownAt + 1000 / FPS - performance.now();
    this.#timer ||= setTimeout(() => {
      this.#timer = 0;
      if (this.#playing && this.#ready) this.#go(this.#after(this.#frame));
    }, Math.max(0, left_ms));
  }

  /** @param {number} frame @returns {number} the one that is played after it */
  #after(frame) {
    if (frame === this.frames - 1) this.#forth = false;
    if (frame === 0) this.#forth = true;
    return frame + (this.#forth ? 1 : -1);
  }

  /** @param {number} frame */
  #go(frame) {
    slider.value = String(frame);
    told.textContent = `${frame + 1} of ${this.frames}`;
    slider.setAttribute("aria-valuetext", told.textContent);
    this.#ready &&= frame === this.#frame; // else it is not in sight yet
    this.#frame = frame;
    this.#shownAt = performance.now();
    this.show(frame, this.#playing ? this.#after(frame) : null);
  }

  #mark() {
    play.setAttribute("aria-label", this.#playing ? "Pause" : "Play");
    play.querySelector("use").setAttribute("href", this.#playing ? "#icon-pause" : "#icon-play");
  }
}
