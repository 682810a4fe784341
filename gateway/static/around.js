/** Sizes: of canvases with an end, and of pictures that a world or a part of it is to hold. */

import { uploadPicture } from "./canvases.js";
import { TOKEN_PX } from "./grid.js";

/** @typedef {import("./canvases.js").Known} Known */
/** @typedef {import("./grid.js").Extent} Extent */
/** @typedef {import("./grid.js").Rectangle} Rectangle */
/** @typedef {{width: number, height: number}} Size */

/** How many pixels are decoded to be scaled down: they take four bytes each. */
const MAX_PIXELS = 64e6;
/** How high pictures are at most, and canvases unless it is said, where the world has no height. */
const PLANE_PX = 1024;
/** Sides of a canvas with an end, at most: no file has longer ones. */
const MOST_PX = 65536;
/** How wide at most: the middle of what is wider. */
const MAX_WIDTH_PX = 8192;

/**
 * A scroll goes on to the left and right of a picture, so the picture takes all of its height.
 * @param {File} file @param {Extent} extent of the world
 * @returns {Promise<Blob>} the file itself if it moves: the gateway says why not
 */
export function fitted(file, { height_px }) {
  return brought(file, (image) => {
    const height = height_px ?? Math.min(image.height, PLANE_PX);
    return { height, width: (image.width * height) / image.height };
  });
}

/**
 * How large a canvas with an end on all sides may be: whole tokens of all levels; where the world has
 * a height of its own, half of it to twice.
 * @param {Extent} extent of the world
 * @returns {{step: number, least: Size, most: Size, usual: Size}}
 */
export function sizesOf({ finest, height_px }) {
  const step = TOKEN_PX * 2 ** finest;
  const height = height_px ?? PLANE_PX;
  return {
    step,
    least: { width: step, height: height_px ? step * Math.ceil(height / 2 / step) : step },
    most: { width: MOST_PX, height: height_px ? 2 * height : MOST_PX },
    usual: { width: height_px ? 2 * height : height, height },
  };
}

/**
 * A canvas with an end on all sides.
 * @param {Extent} world what it covers
 * @param {Partial<Size>} size where it is not said, twice that of the picture, else as usual
 * @param {Size & {picture: string}} [given] for its middle
 * @returns {{extent: Extent, known?: Known}} as a canvas' spec has it
 */
export function framed(world, size, given) {
  const { step, usual } = sizesOf(world);
  const side = (name) =>
    size[name] || (given ? step * Math.round((2 * given[name]) / step) : usual[name]);
  const [height_px, width_px] = [side("height"), side("width")];
  const extent = { kind: "picture", finest: world.finest, height_px, width_px };
  if (!given) return { extent };
  const { picture, height, width } = given;
  const middle = (space, px) => step * Math.round((space - px) / (2 * step));
  const [top, left] = [middle(height_px, height), middle(width_px, width)];
  return { extent, known: { picture, top, left, height, width } };
}

/**
 * Uploads a picture for the middle of a rectangle, as large as fits into a rim that joins it to all
 * around.
 * @param {File} file @param {Extent} extent of the canvas @param {Rectangle} rectangle
 * @returns {Promise<Known>} where it lies
 */
export async function laidInto(file, { finest }, rectangle) {
  const rim = TOKEN_PX * 2 ** finest;
  const room = { width: rectangle.width - 2 * rim, height: rectangle.height - 2 * rim };
  if (Math.min(room.width, room.height) < rim) {
    throw new Error(`For a picture, mark at least ${3 * rim} × ${3 * rim} pixels.`);
  }
  const { picture, width, height } = await uploadPicture(
    await brought(file, (image) => {
      const scale = Math.min(room.width / image.width, room.height / image.height);
      return { width: image.width * scale, height: image.height * scale };
    }),
  );
  const middle = (start, space, size) =>
    start + rim + rim * Math.floor((space - size + rim) / (2 * rim));
  const top = middle(rectangle.top, room.height, height);
  const left = middle(rectangle.left, room.width, width);
  return { picture, top, left, height, width };
}

/**
 * @param {File} file @param {(image: Size) => Size} sizeOf how large it is to be, by how it is
 * @returns {Promise<Blob>} the file itself if it moves: the gateway says why not
 */
async function brought(file, sizeOf) {
  if (await moves(file)) return file;
  const image = await opened(file);
  const size = sizeOf(image);
  const [width, height] = [size.width, size.height].map((px) => Math.max(1, Math.round(px)));
  const sheet = document.createElement("canvas");
  sheet.height = height;
  sheet.width = Math.min(width, MAX_WIDTH_PX);
  const pen = sheet.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, (sheet.width - width) / 2, 0, width, height);
  image.close();
  return new Promise((resolve) => sheet.toBlob((blob) => resolve(blob ?? file), "image/png"));
}

/**
 * @param {File} file @returns {Promise<ImageBitmap>}
 * @throws what is wrong with it, in words; sizes are looked at before a pixel is decoded
 */
async function opened(file) {
  const refuse = () => {
    throw new Error(`${file.name} is broken, or no PNG, JPEG or WebP picture.`);
  };
  const { naturalWidth: width, naturalHeight: height } = await begun(file).catch(refuse);
  if (width * height > MAX_PIXELS) {
    const most = MAX_PIXELS / 1e6;
    throw new Error(`A picture may have ${most} million pixels, not ${width} × ${height}.`);
  }
  return createImageBitmap(file).catch(refuse);
}

/** @param {File} file @returns {Promise<HTMLImageElement>} of which the size is known by now */
function begun(file) {
  const url = URL.createObjectURL(file);
  const image = new Image();
  const loaded = new Promise((resolve, reject) => {
    image.onload = () => resolve(image);
    image.onerror = reject;
  });
  image.src = url;
  return loaded.finally(() => URL.revokeObjectURL(url));
}

/**
 * Drawn on a sheet, a picture that moves would be its first frame, and nobody would be told. The
 * marks of its format say so; ImageDecoder would, but pages without https have none.
 * @param {File} file @returns {Promise<boolean>} a GIF may move as well, and is taken nowhere
 */
async function moves(file) {
  const marks = new TextDecoder("latin1").decode(await file.arrayBuffer());
  if (marks.startsWith("PNG", 1)) return marks.slice(0, marks.indexOf("IDAT")).includes("acTL");
  if (marks.startsWith("WEBPVP8X", 8)) return (marks.charCodeAt(20) & 2) !== 0;
  return marks.startsWith("GIF8");
}
