/** Pictures to paint around, brought to a size that a world or a part of it can hold. */

import { uploadPicture } from "./canvases.js";
import { TOKEN_PX } from "./grid.js";

/** @typedef {import("./canvases.js").Known} Known */
/** @typedef {import("./grid.js").Extent} Extent */
/** @typedef {import("./grid.js").Rectangle} Rectangle */
/** @typedef {{width: number, height: number}} Size */

/** How high pictures are at most, where the world has no height of its own. */
const PLANE_PX = 1024;
/** How wide at most: the middle of what is wider. */
const MAX_WIDTH_PX = 8192;

/**
 * A scroll goes on to the left and right of a picture, so the picture takes all of its height.
 * @param {File} file @param {Extent} extent of the world
 * @returns {Promise<Blob>} the file itself if it cannot be read here: the gateway says why
 */
export function fitted(file, { height_px }) {
  return brought(file, (image) => {
    const height = height_px ?? Math.min(image.height, PLANE_PX);
    return { height, width: (image.width * height) / image.height };
  });
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
 * @returns {Promise<Blob>} the file itself if it cannot be read here
 */
async function brought(file, sizeOf) {
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    return file;
  }
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
