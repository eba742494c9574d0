// The review: one picture at a time, each decision saved before the next one is shown.

import * as api from "./api.js";
import * as editor from "./editor.js";
import * as filters from "./filters.js";
import * as keys from "./keys.js";
import * as pictures from "./pictures.js";
import * as view from "./view.js";

const SAID = {
  accepted: "Accepted", edited: "Saved", rejected: "Rejected",
  decorative: "Decorative", skipped: "Skipped",
};

let current = null; // the item that is shown
let next = []; // the items after it
let choice = 0; // the text that is shown: 0 for the caption, n for the alternative n
let steps = 0; // that can be undone
let isBusy = false;
let round = 0; // of steps: an answer about an earlier round is out of date
let state = null; // the last answer about the queue

const texts = () => [current.caption, ...current.alternatives];
// A person's text is shown rather than the caption, so that accepting never loses it.
const firstChoice = () => Math.max(texts().indexOf(current.former?.text), 0);

function show(item, said) {
  current = item;
  editor.close();
  if (!item) return showEnd(said);
  choice = firstChoice();
  const hadFocus = document.activeElement?.closest("#choices, #editor, #end");
  view.item(item);
  view.text(item, choice);
  view.picture(item, () => current === item);
  view.announce(`${said} ${item.name}: ${texts()[choice]} ${view.sureness(item)}.`.trim());
  if (hadFocus || document.activeElement === document.body) view.at("caption").focus();
  view.enable(true, steps > 0);
}

function showEnd(said) {
  const { filters: chosen, saved } = state;
  const isPlain = chosen.status === "to_review" && !chosen.folder && !chosen.text;
  const title = isPlain && chosen.low === 0 && chosen.high === 1 ? "All done" : "No more pictures";
  const explanation = isPlain
    ? `Nothing is left to review. ${view.decisions(saved)} saved.`
    : "No more pictures match the filter.";
  showNothing(title, explanation);
  view.announce(`${said} ${title}. ${explanation}`.trim());
}

function showNothing(title, explanation = "") {
  editor.close();
  view.nothing(title, explanation);
  view.at("end-title").focus();
  view.enable(false, steps > 0);
}

function take(answer) {
  state = answer;
  steps = answer.steps;
  view.totals(answer);
  next = answer.items.filter((item) => item.id !== current?.id);
  next.forEach(pictures.prepare);
  pictures.keepOnly(current ? [current, ...next] : next);
}

async function refill() {
  const asked = round;
  const answer = await api.queue();
  if (asked === round) take(answer);
}

function refillSoon() {
  refill().catch((error) => view.fault(error.message, true));
}

// What is done stays done: only the next picture can be asked for again.
async function advance(said, done) {
  round += 1;
  current = null;
  try {
    if (next.length === 0) await refill();
  } catch (error) {
    showNothing("No next picture yet");
    const message = `${done}, but the next picture did not come. ${error.message}`;
    throw Object.assign(new Error(message), { canRetry: true });
  }
  show(next.shift() ?? null, said);
  refillSoon();
}

// One thing at a time: a second key while the first is being saved must not decide unseen.
async function alone(work, canRetry = false) {
  if (isBusy) return;
  isBusy = true;
  const slow = setTimeout(() => view.notice("Saving …"), 400);
  try {
    await work();
    view.fault("");
  } catch (error) {
    view.fault(error.message, canRetry || error.canRetry);
  } finally {
    clearTimeout(slow);
    isBusy = false;
  }
}

function decide(decision, text = "") {
  return alone(async () => {
    const answer = await api.decide(current.id, decision, text);
    steps += 1;
    const said = SAID[answer.decision] + (answer.text ? `: ${answer.text}` : ".");
    const other = answer.by_other;
    view.notice(other ? `${said} Instead of what ${other.reviewer} decided meanwhile.` : said);
    await advance(SAID[answer.decision] + ".", "The decision is saved");
  });
}

function skip() {
  return alone(async () => {
    await api.skip(current.id);
    steps += 1;
    view.notice("Skipped until the others are done.");
    await advance("Skipped.", "The picture is skipped");
  });
}

function undo() {
  if (steps === 0) return view.notice("There is nothing to undo.");
  return alone(async () => {
    const { item, decision } = await api.undo();
    steps -= 1;
    round += 1;
    if (current) next.unshift(current);
    view.notice(`Undone: ${(SAID[decision] ?? SAID.skipped).toLowerCase()}.`);
    show(item, "Undone.");
    refillSoon();
  });
}

function choose(n) {
  const text = current.alternatives[n - 1];
  if (text !== undefined) decide("edited", text);
}

function turn(by) {
  if (editor.isOpen()) return;
  choice = (choice + by + texts().length) % texts().length;
  view.text(current, choice);
  view.announce(`${texts()[choice]} ${choice === 0 ? "The caption." : `Text ${choice}.`}`);
}

function accept() {
  if (editor.isOpen()) return view.at("editor").requestSubmit();
  return choice === 0 ? decide("accepted") : decide("edited", texts()[choice]);
}

function cancel() {
  editor.close();
  view.at("others").hidden = current.alternatives.length === 0;
  view.text(current, choice);
  view.at("caption").focus();
}

const ALWAYS = {
  undo,
  help: () => view.at("help").showModal(),
  filter: () => state && filters.open(state.filters),
  retry: () => start(),
};
const WITH_ITEM = {
  accept,
  edit: () => editor.open(texts()[choice], current.longest),
  next: () => turn(1),
  previous: () => turn(-1),
  reject: () => decide("rejected"),
  decorative: () => decide("decorative"),
  skip,
  cancel,
};

function act(action) {
  const [name, n] = action.split(" ");
  if (ALWAYS[name]) ALWAYS[name]();
  else if (current && name === "choose") choose(Number(n));
  else if (current) WITH_ITEM[name]?.();
}

function load(request, said) {
  return alone(async () => {
    round += 1;
    current = null;
    editor.close();
    view.nothing("Reading the table …", "");
    view.enable(false, false);
    take(await request());
    show(next.shift() ?? null, said);
  }, true);
}

const start = () => load(api.queue, "");

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-act]");
  if (button) act(button.dataset.act);
});
keys.listen(act);
editor.listen((text) => decide("edited", text), cancel);
filters.listen((chosen) => load(() => api.filter(chosen), "Filtered."));
start();
