// What is on the page. Texts are set as text, never as HTML.

import * as pictures from "./pictures.js";

export const at = (id) => document.getElementById(id);
const number = (value) => value.toLocaleString("en");
export const decisions = (n) => `${number(n)} ${n === 1 ? "decision" : "decisions"}`;
const percent = (value) => `${Math.round(value * 100)}%`;
const NAMES = { to_review: "To review", undecided: "Undecided", decided: "Decided", all: "All" };

function element(name, text = "", kind = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

export function announce(text) {
  at("announcer").textContent = text;
}

export function notice(text) {
  at("notice").textContent = text;
  at("notice").title = text;
}

export function fault(text, canRetry = false) {
  at("alert").hidden = !text;
  at("retry").hidden = !canRetry;
  at("alert-text").textContent = text;
}

export function totals({ remaining, saved, filters, reviewer, out }) {
  at("progress").textContent = `${number(remaining)} left · ${number(saved)} saved`;
  at("where").textContent = `${out}, by ${reviewer}`;
  const narrowed = filters.low > 0 || filters.high < 1 || filters.folder || filters.text;
  at("filter-name").textContent = NAMES[filters.status] + (narrowed ? ", filtered" : "");
  document.title = `${number(remaining)} left – Review`;
}

// The picture comes when it is there; nothing else moves, since the frame keeps its size.
export async function picture(item, isCurrent) {
  at("name").textContent = item.name;
  at("folder").textContent = item.folder;
  at("frame").dataset.item = "";
  const waiting = setTimeout(() => {
    if (isCurrent()) at("frame").replaceChildren(element("p", "Loading the picture …", "quiet"));
  }, 150);
  try {
    const image = await pictures.prepare(item);
    if (!isCurrent()) return;
    at("frame").replaceChildren(image);
    at("frame").dataset.item = item.id;
  } catch (error) {
    if (isCurrent()) at("frame").replaceChildren(element("p", `No picture: ${error.message}`, "bad"));
  } finally {
    clearTimeout(waiting);
  }
}

const surenessOf = (item, probability) =>
  `${percent(probability)}\u00a0${item.calibrated ? "sure" : "probable"}`;

// The same for those who cannot see the underlines, or point at them.
function doubts(item) {
  const doubtful = item.words.filter(([, probability]) => probability !== null);
  const named = doubtful.map(([text, p]) => `${text.trim().replace(/\.$/, "")} (${surenessOf(item, p)})`);
  return named.length ? `Doubtful: ${named.join(", ")}` : "";
}

function captionWords(item) {
  return item.words.flatMap(([text, probability]) => {
    if (probability === null) return [text];
    const word = element("mark", text.trimStart(), "doubt");
    word.title = surenessOf(item, probability);
    word.append(element("span", " (doubtful)", "visually-hidden"));
    return [text.startsWith(" ") ? " " : "", word];
  });
}

export function text(item, choice) {
  const texts = [item.caption, ...item.alternatives];
  at("caption").replaceChildren(...(choice ? [texts[choice]] : captionWords(item)));
  at("doubts").textContent = choice ? "" : doubts(item);
  at("doubts").hidden = !at("doubts").textContent;
  at("hint").hidden = choice === 0;
  at("hint").textContent = `Text ${choice} of the list, instead of: ${item.caption}`;
  for (const [n, button] of [...at("choices").querySelectorAll("button")].entries())
    button.setAttribute("aria-current", String(n + 1 === choice));
}

function choice(item, text, n) {
  const button = element("button");
  button.type = "button";
  button.dataset.act = `choose ${n}`;
  button.setAttribute("aria-keyshortcuts", String(n));
  const words = element("span", text);
  if (item.former?.text === text) words.append(element("small", `by ${item.former.reviewer}`));
  button.append(element("kbd", String(n)), words);
  const entry = element("li");
  entry.append(button);
  return entry;
}

const DID = {
  accepted: (text) => `accepted “${text}”`,
  edited: (text) => `wrote “${text}”`,
  rejected: () => "rejected the caption",
  decorative: () => "called the picture decorative",
};

function formerText({ decision, text, reviewer, at, outdated }) {
  const when = new Date(at).toLocaleDateString("en", { dateStyle: "medium" });
  const what = `On ${when}, ${reviewer} ${DID[decision](text)}`;
  return outdated ? `The picture has changed. ${what}` : what;
}

export function sureness(item) {
  if (item.confidence === null) return "Confidence unknown";
  return `${percent(item.confidence)} confidence, ${item.sureness}`;
}

export function item(item) {
  at("work").hidden = false;
  at("end").hidden = true;
  at("former").hidden = !item.former;
  at("former").textContent = item.former ? formerText(item.former) : "";
  at("sureness").textContent = sureness(item);
  at("gauge").style.width = percent(item.confidence ?? 0);
  at("choices").replaceChildren(...item.alternatives.map((text, n) => choice(item, text, n + 1)));
  at("others").hidden = item.alternatives.length === 0;
  at("choices").closest(".scroll").scrollTop = 0;
}

export function nothing(title, explanation) {
  at("work").hidden = true;
  at("end").hidden = false;
  at("end-title").textContent = title;
  at("end-text").textContent = explanation;
  at("frame").replaceChildren();
  at("name").textContent = at("folder").textContent = "";
}

export function enable(has, hasSteps) {
  for (const button of at("actions").querySelectorAll("button"))
    button.disabled = button.dataset.act === "undo" ? !hasSteps : !has;
  const next = at("actions").querySelector("[data-act=next]");
  next.disabled ||= at("others").hidden;
}
