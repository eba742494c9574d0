// Pictures, fetched and decoded before they are shown.

import * as api from "./api.js";

const made = new Map(); // id of an item -> promise of an element

async function load(item) {
  const image = new Image();
  image.alt = `Picture ${item.name}`;
  image.src = URL.createObjectURL(await api.picture(item.id));
  await image.decode();
  return image;
}

export function prepare(item) {
  if (!made.has(item.id)) {
    const loading = load(item);
    loading.catch(() => made.delete(item.id)); // the next time may be better
    made.set(item.id, loading);
  }
  return made.get(item.id);
}

export function keepOnly(items) {
  const kept = new Set(items.map((item) => item.id));
  for (const [id, loading] of made) {
    if (kept.has(id)) continue;
    made.delete(id);
    loading.then((image) => URL.revokeObjectURL(image.src), () => {});
  }
}
