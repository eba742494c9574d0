// The editor of a text: it counts as people write, and saves what fits.

import { announce, at } from "./view.js";

const spaces = /\s+/gu;
let most = 125;

export const isOpen = () => !at("editor").hidden;

// As the server saves and counts it.
function written() {
  return at("text").value.normalize("NFC").replace(spaces, " ").trim();
}

function count() {
  const length = [...written()].length;
  const over = length - most;
  at("count").className = over > 0 ? "count bad" : "count quiet";
  at("count").textContent =
    over > 0 ? `${length} of ${most} characters: ${over} too many` : `${length} of ${most} characters`;
  at("text").setAttribute("aria-invalid", String(over > 0));
  return length;
}

function problem() {
  const length = count();
  if (length === 0) return "Write a text. A picture that needs none is decorative: Esc, then D.";
  return length > most ? at("count").textContent : "";
}

export function open(text, longest) {
  most = longest;
  at("caption").hidden = at("hint").hidden = at("others").hidden = true;
  at("editor").hidden = false;
  at("panel").classList.add("editing");
  at("text").value = text;
  count();
  at("text").focus();
  at("text").select();
}

export function close() {
  if (!isOpen()) return;
  at("editor").hidden = true;
  at("panel").classList.remove("editing");
  at("caption").hidden = false;
}

export function listen(save, cancel) {
  const submit = () => {
    const wrong = problem();
    if (!wrong) return save(written());
    at("count").textContent = wrong;
    at("count").className = "count bad";
    announce(wrong);
    at("text").focus();
  };
  at("text").addEventListener("input", () => {
    if (count() === most + 1) announce(`More than ${most} characters`);
  });
  at("text").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  at("editor").addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.isComposing) cancel();
  });
  at("editor").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
}
