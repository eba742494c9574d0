// The requests to the server, each for this window of the browser.

const KEY = "captioner-review-window";

function windowName() {
  let name = sessionStorage.getItem(KEY);
  if (!name) {
    name = crypto.getRandomValues(new Uint32Array(2)).join("-");
    sessionStorage.setItem(KEY, name);
  }
  return name;
}

const here = windowName();

async function answered(request) {
  let response;
  try {
    response = await request;
  } catch {
    throw new Error("The server does not answer: is “captioner review” still running?");
  }
  if (response.ok) return response;
  const { error } = await response.json().catch(() => ({}));
  throw new Error(error || `The server answers with status ${response.status}.`);
}

async function post(path, values) {
  const body = JSON.stringify({ ...values, window: here });
  const headers = { "Content-Type": "application/json" };
  return (await answered(fetch(path, { method: "POST", headers, body }))).json();
}

export const queue = async () =>
  (await answered(fetch(`api/queue?window=${here}`))).json();
export const filter = (filters) => post("api/queue", { filters });
export const decide = (item, decision, text) => post("api/decisions", { item, decision, text });
export const skip = (item) => post("api/skip", { item });
export const undo = () => post("api/undo", {});
export const picture = async (item) => (await answered(fetch(`pictures/${item}`))).blob();
