// The dialogue of the filters.

import { at } from "./view.js";

const ALL = { status: "to_review", low: 0, high: 1, folder: "", text: "" };

export function open(filters) {
  at("status").value = filters.status;
  at("low").value = Math.round(filters.low * 100);
  at("high").value = Math.round(filters.high * 100);
  at("folder-filter").value = filters.folder;
  at("text-filter").value = filters.text;
  at("filters").returnValue = "";
  at("filters").showModal();
}

function chosen() {
  const [low, high] = [at("low"), at("high")].map((input) => Number(input.value) / 100);
  return {
    status: at("status").value,
    low: Math.min(low, high),
    high: Math.max(low, high),
    folder: at("folder-filter").value.trim(),
    text: at("text-filter").value.trim(),
  };
}

export function listen(apply) {
  at("filters").addEventListener("close", () => {
    const { returnValue } = at("filters");
    if (returnValue) apply(returnValue === "apply" ? chosen() : ALL);
  });
}
