/** Pictures to paint around, brought to a size that a world can hold. */

/** @typedef {import("./grid.js").Extent} Extent */

/** How high pictures are at most, where the world has no height of its own. */
const PLANE_PX = 1024;
/** How wide at most: the middle of what is wider. */
const MAX_WIDTH_PX = 8192;

/**
 * A scroll goes on to the left and right of a picture, so the picture takes all of its height.
 * @param {File} file @param {Extent} extent of the world
 * @returns {Promise<Blob>} the file itself if it cannot be read here: the gateway says why
 */
export async function fitted(file, { height_px }) {
  let image;
  try {
    image = await createImageBitmap(file);
  } catch {
    return file;
  }
  const height = height_px ?? Math.min(image.height, PLANE_PX);
  const sheet = document.createElement("canvas");
  sheet.height = height;
  const width = Math.max(1, Math.round((image.width * height) / image.height));
  sheet.width = Math.min(width, MAX_WIDTH_PX);
  const pen = sheet.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.drawImage(image, (sheet.width - width) / 2, 0, width, height);
  image.close();
  return new Promise((resolve) => sheet.toBlob((blob) => resolve(blob ?? file), "image/png"));
}
