// Keys that act without a modifier. They can be switched off, for those who dictate or use other tools.

const KEY = "captioner-review-keys";
const ACTIONS = {
  a: "accept", e: "edit", n: "next", p: "previous", r: "reject",
  d: "decorative", s: "skip", u: "undo", f: "filter", "?": "help",
};

function isTyping(target) {
  return target.closest("input, textarea, select, [contenteditable]") !== null;
}

function actionOf(event) {
  if (event.key === "Enter") return event.target.closest("button, a, summary") ? null : "accept";
  if (/^[1-9]$/.test(event.key)) return `choose ${event.key}`;
  return ACTIONS[event.key.toLowerCase()] ?? null;
}

export function listen(act) {
  const box = document.getElementById("single-keys");
  box.checked = localStorage.getItem(KEY) !== "off";
  box.addEventListener("change", () => localStorage.setItem(KEY, box.checked ? "on" : "off"));
  document.addEventListener("keydown", (event) => {
    const isOurs = !event.repeat && !event.isComposing && box.checked;
    if (!isOurs || event.ctrlKey || event.metaKey || event.altKey) return;
    if (isTyping(event.target) || document.querySelector("dialog[open], #editor:not([hidden])"))
      return;
    const action = actionOf(event);
    if (!action) return;
    event.preventDefault();
    act(action);
  });
}
