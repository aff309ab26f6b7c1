import { byId, element, showText } from "./dom.js";
import { Keeper, Outbox } from "./keep.js";
import { get, Refused } from "./server.js";

const meta = (name) => document.querySelector(`meta[name="${name}"]`).content;
const annotator = meta("annotator");
const keeper = new Keeper(meta("store-id"), annotator);
const outbox = new Outbox(keeper, annotator, onOutbox);

const AHEAD = 12; // records fetched before they are needed, to go on through a short loss of connection
const TRAIL = 200;
const UNDOS = 100;
const NOTE_PAUSE_MS = 1500;
const SEARCH_PAUSE_MS = 300;
const RETRY_MS = 3000;
const OPEN = { status: "open", score: null, is_skipped: false, notes: null, severity: null };
const VERDICTS = { accepted: "✓ Accepted", rejected: "✕ Rejected", skipped: "Skipped", open: "" };

const states = new Map(); // by record id, as this browser last knew or made it
let trail = []; // records visited, to walk back on
let shown = null; // the record on the screen
let place = -1; // in the trail; trail.length stands for "past the last record"
let ahead = [];
let view = keeper.get("view", { filter: "open", q: "" });
let overview = { progress: null, filters: [], has_judge: false, criteria: { version: null, text: "" } };
let sawCriteria = false;
let noteTimer = null;
let looking = null;
let walks = 0; // steps and changes of view under way; while there are any, no key judges what is still shown
let opened = Promise.resolve();
let isOffline = false;
let isUnanswered = false; // nobody could be asked for the records of the view

const current = () => trail[place] ?? null;
const stateOf = (record) => states.get(record.id) ?? OPEN;
const isFormatted = () => keeper.get("formatted", true);

// ---- changes -------------------------------------------------------------------------------------------------------

function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function statusOf({ score, is_skipped: isSkipped }) {
  if (score === null) return isSkipped ? "skipped" : "open";
  return score === 1 ? "accepted" : "rejected";
}

function change(record, action, values) {
  const before = stateOf(record);
  const after = { ...before, ...values };
  after.status = statusOf(after);
  states.set(record.id, after);
  keeper.remove(`draft:${record.id}`);
  const { status, ...stored } = after;
  outbox.add({
    event_id: newId(),
    record_id: record.id,
    action,
    ...stored,
    record_fingerprint: record.fingerprint,
    criteria_version: sawCriteria ? overview.criteria.version : null,
    saw_judge: keeper.get(`saw:judge:${record.id}`, false),
    saw_others: keeper.get(`saw:others:${record.id}`, false),
  });
  count(before.status, status);
}

const noteInField = () => byId("note").value.trim() || null;

function severityInField() {
  const value = Number(document.querySelector('input[name="severity"]:checked').value);
  return value === 1 ? null : value;
}

function commitNote() {
  clearTimeout(noteTimer);
  const record = current();
  if (!record) return;
  const state = stateOf(record);
  const isJudged = state.score !== null;
  const severity = isJudged ? severityInField() : state.severity;
  if (noteInField() === (state.notes ?? null) && severity === state.severity) return;
  const action = isJudged ? "annotate" : state.is_skipped ? "skip" : "note";
  change(record, action, { notes: noteInField(), severity });
}

function decide(values, action) {
  const record = current();
  if (!record || walks) return;
  clearTimeout(noteTimer);
  const before = stateOf(record);
  const after = { ...values, notes: noteInField(), severity: values.score === null ? null : severityInField() };
  const isSame = Object.entries(after).every(([name, value]) => before[name] === value);
  if (!isSame) {
    change(record, action, after);
    const { score, is_skipped, severity } = before;
    keeper.set("undo", [...keeper.get("undo", []), { id: record.id, before: { score, is_skipped, severity } }].slice(-UNDOS));
  }
  const needsWhy = values.score === 0 && after.notes === null && keeper.get("ask-why", true);
  if (needsWhy) {
    show();
    focusNote();
  } else {
    go(1);
  }
}

const accept = () => decide({ score: 1, is_skipped: false }, "annotate");
const reject = () => decide({ score: 0, is_skipped: false }, "annotate");
const skip = () => decide({ score: null, is_skipped: true }, "skip");

async function undo() {
  const undos = keeper.get("undo", []);
  const last = undos.pop();
  if (!last || walks) return;
  commitNote();
  countWalks(+1);
  try {
    if (current()?.id !== last.id && !(await visit(last.id))) return;
  } finally {
    countWalks(-1);
  }
  keeper.set("undo", undos);
  change(current(), "undo", last.before);
  show();
}

// ---- walking from record to record -------------------------------------------------------------------------------

// An answer may be older than what was decided while it was on its way.
function takeIn(records, askedAt) {
  const newer = outbox.changedSince(askedAt);
  for (const record of records) {
    if (!newer.has(record.id)) states.set(record.id, record.state ?? OPEN);
  }
  return records;
}

async function fetchRecords(direction, n) {
  const last = direction === "next" ? (ahead.at(-1) ?? current() ?? trail.at(-1)) : current();
  const query = { ...view, direction, n };
  if (last) query.from = last.id;
  const askedAt = performance.now();
  const answer = await get("/api/records", query);
  const known = new Set([...ahead, current()].filter(Boolean).map((record) => record.id));
  return takeIn(answer.records, askedAt).filter((record) => !known.has(record.id) && belongs(record));
}

function belongs(record) {
  const { status } = stateOf(record);
  if (view.filter === "plan") return status === "open"; // what is judged leaves the plan
  if (view.filter === "done") return status === "accepted" || status === "rejected";
  return !["open", "skipped"].includes(view.filter) || status === view.filter;
}

// Resolves to whether the server answered; one look at a time, and none of its finds outlives a change of view.
function lookAhead() {
  looking ??= look().finally(() => (looking = null));
  return looking;
}

async function look() {
  const before = view;
  try {
    const found = await fetchRecords("next", AHEAD);
    if (view === before) ahead.push(...found);
    return true;
  } catch (error) {
    if (!ahead.length) onTrouble(error);
    return false;
  }
}

function countWalks(change) {
  walks += change;
  byId("sheet").setAttribute("aria-busy", String(walks > 0));
}

async function go(step) {
  if (walks) return;
  commitNote();
  notify("");
  countWalks(+1);
  try {
    if (step < 0) await goBack();
    else if (place < trail.length - 1) place += 1;
    else await goOn();
  } finally {
    countWalks(-1);
  }
  show();
  window.scrollTo(0, 0);
}

// Resolves to whether the server answered, where it had to be asked.
async function goOn() {
  ahead = ahead.filter(belongs);
  const isAnswered = ahead.length > 0 || (await lookAhead());
  const next = ahead.shift();
  if (next) {
    trail = [...trail, next].slice(-TRAIL);
    place = trail.length - 1;
  } else if (isAnswered) {
    place = trail.length;
  }
  if (ahead.length < AHEAD / 2) lookAhead();
  return isAnswered;
}

async function goBack() {
  if (place > 0) place -= 1;
  else await goBeforeTrail();
}

async function goBeforeTrail() {
  try {
    const [before] = await fetchRecords("previous", 1);
    if (before) trail.unshift(before);
    place = before || trail.length ? 0 : -1;
  } catch (error) {
    onTrouble(error);
  }
}

async function visit(id) {
  const at = trail.findLastIndex((record) => record.id === id);
  if (at >= 0) {
    place = at;
    return true;
  }
  try {
    const askedAt = performance.now();
    const { records } = await get("/api/records", { id });
    trail.splice(Math.max(place, 0), 0, ...takeIn(records, askedAt));
    place = Math.max(place, 0);
    return true;
  } catch (error) {
    onTrouble(error);
    return false;
  }
}

// Views are opened one after the other, so that none fills the trail of another; what a later choice overtakes is left out.
function startView(next, id = null) {
  commitNote();
  view = next;
  countWalks(+1);
  const opening = opened.then(() => openView(next, id)).finally(() => countWalks(-1));
  opened = opening.catch(() => {});
  return opening;
}

async function openView(chosen, id) {
  await looking;
  if (view === chosen) await outbox.send(); // so that the server chooses by what was decided just now
  if (view !== chosen) return;
  keeper.set("view", view);
  [trail, place, ahead] = [[], -1, []];
  const isAnswered = (id !== null && (await visit(id))) || (await goOn());
  if (view !== chosen) return;
  if (isUnanswered && isAnswered) {
    notify("");
    await refreshOverview();
  }
  isUnanswered = !isAnswered;
  show();
  if (isUnanswered) setTimeout(() => view === chosen && startView(chosen, id), RETRY_MS);
  else if (ahead.length < AHEAD / 2) lookAhead();
}

// ---- showing -----------------------------------------------------------------------------------------------------

function show() {
  const record = current();
  byId("sheet").hidden = byId("desk").hidden = !record;
  byId("nothing").hidden = Boolean(record);
  if (!record) {
    showNothing();
    return;
  }
  if (record !== shown) hideRevealed();
  shown = record;
  keeper.set("at", record.id);
  byId("where").textContent = `Record ${record.number} of ${overview.progress?.total ?? "…"} · ${record.id}`;
  let canFormat = false;
  for (const name of ["query", "output", "reference"]) {
    const text = record.texts[name];
    if (text) showText(byId(name), text, isFormatted());
    canFormat ||= Boolean(text?.nodes);
  }
  byId("reference-section").hidden = !record.texts.reference;
  document.querySelector(".pair").classList.toggle("with-reference", Boolean(record.texts.reference));
  byId("toggle-format").hidden = !canFormat;
  byId("toggle-format").setAttribute("aria-pressed", String(!isFormatted()));
  byId("metadata").hidden = !record.metadata.length;
  byId("metadata").replaceChildren(
    ...record.metadata.map(([name, value]) =>
      element("div", {}, element("dt", { textContent: name }), element("dd", { textContent: value, dir: "auto" })),
    ),
  );
  showState(record);
  const before = stateOf(record).status === "open" ? record.judged_before : null;
  byId("changed").hidden = !before;
  byId("changed").textContent = before ? `You ${before} this record when its text was another. Please judge it as it is now.` : "";
}

function showState(record) {
  const state = stateOf(record);
  byId("verdict").textContent = VERDICTS[state.status];
  byId("verdict").dataset.status = state.status;
  byId("accept").setAttribute("aria-pressed", String(state.score === 1));
  byId("reject").setAttribute("aria-pressed", String(state.score === 0));
  byId("skip").setAttribute("aria-pressed", String(state.is_skipped));
  const draft = keeper.get(`draft:${record.id}`);
  byId("note").value = draft?.notes ?? state.notes ?? "";
  fitNote();
  const severity = draft?.severity ?? state.severity ?? 1;
  for (const input of document.querySelectorAll('input[name="severity"]')) {
    input.checked = Number(input.value) === severity;
  }
  byId("undo").disabled = !keeper.get("undo", []).length;
}

function showNothing() {
  const isSearch = view.q !== "";
  const done = view.filter === "open" && !isSearch ? "Every record is annotated or skipped. Thank you." : "No record here.";
  const found = isSearch ? `No record here holds “${view.q}”.` : done;
  byId("nothing-text").textContent = isUnanswered ? "The records come as soon as the server answers." : found;
  byId("back").hidden = !trail.length;
  byId("show-all").hidden = isUnanswered || (view.filter === "all" && !isSearch);
  byId("show-all").textContent = isSearch && view.filter !== "all" ? "Search in all records" : "Show all records";
}

function fitNote() {
  const note = byId("note");
  if (CSS.supports("field-sizing", "content")) return;
  note.rows = Math.min(note.value.split("\n").length + Math.floor(note.value.length / 70), 6);
}

function notify(text) {
  if (byId("notice").textContent !== text) byId("notice").textContent = text; // a live region: said once
  byId("notice").hidden = !text;
}

function onTrouble(error) {
  notify(
    error instanceof Refused
      ? `${error.message}.`
      : "No connection to the server. What you typed and decided is kept in this browser; further records come when it is back.",
  );
}

function onOutbox(what, detail) {
  const n = outbox.pending().length;
  const saved = byId("saved");
  saved.dataset.state = what === "offline" || what === "refused" ? "kept" : "saved";
  if (what === "sending") saved.textContent = "Saving…";
  if (what === "saved") {
    saved.textContent = "Saved";
    if (isOffline) notify("");
    isOffline = false;
    showRefused();
  }
  if (what === "offline") {
    saved.textContent = `Offline · ${n} kept here`;
    if (!isOffline) onTrouble(detail); // said once, by the live region; the line above stays
    isOffline = true;
  }
  if (what === "refused") {
    saved.textContent = `${n} kept here`;
    notify(`Not saved yet: ${detail.message}. Your changes are kept in this browser.`);
  }
  if (what === "progress") {
    overview.progress = detail;
    showProgress();
  }
}

function showRefused() {
  const refused = outbox.refused();
  if (refused.length) notify(`${refused.length} of your changes could not be saved: ${refused.at(-1).reason}.`);
}

function count(before, after) {
  if (!overview.progress || before === after) return;
  overview.progress[before] -= 1;
  overview.progress[after] += 1;
  showProgress();
}

function showProgress() {
  const { total, accepted, rejected, skipped } = overview.progress;
  byId("progress").max = Math.max(total, 1);
  byId("progress").value = accepted + rejected;
  const counts = { open: total - accepted - rejected - skipped, done: accepted + rejected, skipped, all: total };
  for (const option of byId("filter").options) {
    if (option.value in counts) option.textContent = `${labelOf(option.value)} (${counts[option.value]})`;
  }
  byId("progress-text").textContent = `${accepted + rejected} of ${total}${skipped ? ` · ${skipped} skipped` : ""}`;
}

const labelOf = (key) => overview.filters.find((filter) => filter.key === key)?.label ?? key;

async function refreshOverview() {
  try {
    overview = await get("/api/overview");
  } catch (error) {
    onTrouble(error);
    return;
  }
  showProgress();
  const select = byId("filter");
  const groups = new Map([["", select]]);
  select.replaceChildren();
  for (const { key, label, heading, count: n } of overview.filters) {
    if (!groups.has(heading)) {
      groups.set(heading, element("optgroup", { label: heading }));
      select.append(groups.get(heading));
    }
    groups.get(heading).append(element("option", { value: key, textContent: `${label} (${n})` }));
  }
  if (!overview.filters.some(({ key }) => key === view.filter)) view = { ...view, filter: "open" };
  select.value = view.filter;
  byId("show-judge").hidden = !overview.has_judge;
  byId("show-criteria").hidden = !overview.criteria.version;
  byId("criteria-title").textContent = `Criteria ${overview.criteria.version ?? ""}`;
  byId("criteria-text").textContent = overview.criteria.text;
}

// ---- verdicts of others, on request --------------------------------------------------------------------------------

function opinion(who, { score, severity, notes }, extra = "") {
  const verdict = score === null ? "gives no verdict" : score === 1 ? "accepts" : "rejects";
  const weight = severity ? ` (severity ${severity})` : "";
  const text = element("div", { className: "plain", textContent: notes ?? "", dir: "auto" });
  return element("div", { className: "opinion" }, element("strong", { textContent: who }), ` ${verdict}${weight}${extra}`, text);
}

function hideRevealed() {
  byId("revealed").replaceChildren();
  for (const id of ["show-judge", "show-others"]) byId(id).setAttribute("aria-expanded", "false");
}

async function reveal(what) {
  const record = current();
  if (!record || (what === "judge" && !overview.has_judge)) return;
  const isShown = byId(`show-${what}`).getAttribute("aria-expanded") === "true";
  hideRevealed();
  if (isShown) return;
  try {
    const answer = await get("/api/reveal", { id: record.id, what });
    if (current() !== record) return;
    keeper.set(`saw:${what}:${record.id}`, true);
    byId(`show-${what}`).setAttribute("aria-expanded", "true");
    const opinions = what === "judge" ? judgeOpinions(answer.judge) : answer.others.map((o) => opinion(o.annotator, o));
    if (!opinions.length) opinions.push(element("p", { textContent: "Nobody else has judged this record." }));
    byId("revealed").replaceChildren(...opinions);
  } catch (error) {
    onTrouble(error);
  }
}

function judgeOpinions(verdict) {
  if (!verdict) return [element("p", { textContent: "The judge has not seen this record." })];
  const sure = verdict.confidence === null ? "" : `, ${Math.round(verdict.confidence * 100)} % sure`;
  return [opinion(`The judge (${verdict.model})`, { score: verdict.llm_score, notes: verdict.llm_reasoning }, sure)];
}

// ---- hands -------------------------------------------------------------------------------------------------------

function open(id) {
  if (id === "criteria") sawCriteria = true;
  byId(id).showModal();
}

const focusNote = () => byId("note").focus({ preventScroll: true });

function setSeverity(index) {
  const input = document.querySelectorAll('input[name="severity"]')[index];
  if (!input) return;
  input.checked = true;
  onDraft();
}

function onDraft() {
  const record = current();
  if (!record) return;
  keeper.set(`draft:${record.id}`, { notes: byId("note").value, severity: severityInField() ?? 1 });
  fitNote();
  clearTimeout(noteTimer);
  noteTimer = setTimeout(commitNote, NOTE_PAUSE_MS);
}

function toggleFormat() {
  keeper.set("formatted", !isFormatted());
  commitNote();
  show();
}

const KEYS = {
  a: accept, r: reject, s: skip, u: undo, n: focusNote, m: toggleFormat,
  "/": () => byId("search").focus(), f: () => byId("filter").focus(), "?": () => open("menu"),
  c: () => overview.criteria.version && open("criteria"), j: () => reveal("judge"), o: () => reveal("others"),
  ArrowLeft: () => go(-1), ArrowRight: () => go(1),
  1: () => setSeverity(0), 2: () => setSeverity(1), 3: () => setSeverity(2), 4: () => setSeverity(3),
};
const ONCE = new Set(["a", "r", "s", "u"]); // a key held down must not judge the records that follow

document.addEventListener("keydown", (event) => {
  const { target } = event;
  const isText = target.matches("textarea, select, input:not([type=radio], [type=checkbox])");
  if (event.key === "Escape" && isText) target.blur();
  const isModified = event.ctrlKey || event.metaKey || event.altKey || event.isComposing;
  if (isText || isModified || document.querySelector("dialog[open]")) return;
  const isArrow = event.key.startsWith("Arrow");
  if (isArrow && target.matches("input[type=radio], .scroll, pre")) return;
  if (!isArrow && !keeper.get("keys-on", true)) return;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act || (event.repeat && ONCE.has(event.key))) return;
  event.preventDefault();
  act();
});

byId("note").addEventListener("input", onDraft);
byId("note").addEventListener("blur", commitNote);
byId("note").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("note").blur();
  if (current() && stateOf(current()).status !== "open") go(1);
});
for (const input of document.querySelectorAll('input[name="severity"]')) input.addEventListener("change", onDraft);
byId("desk").addEventListener("submit", (event) => event.preventDefault());
for (const [id, act] of Object.entries({
  accept, reject, skip, undo, previous: () => go(-1), next: () => go(1), "toggle-format": toggleFormat,
  "show-judge": () => reveal("judge"), "show-others": () => reveal("others"),
  "show-menu": () => open("menu"), "show-criteria": () => open("criteria"),
  back: () => go(-1),
  "show-all": () => chooseView({ filter: "all", q: view.filter === "all" ? "" : view.q }),
  "sign-out": () => location.assign("/?who"),
})) {
  byId(id).addEventListener("click", act);
}
for (const button of document.querySelectorAll("dialog .close")) {
  button.addEventListener("click", () => button.closest("dialog").close());
}
for (const id of ["keys-on", "ask-why"]) {
  byId(id).checked = keeper.get(id, true);
  byId(id).addEventListener("change", () => keeper.set(id, byId(id).checked));
}

let searchTimer = null;

function startChosenView() {
  clearTimeout(searchTimer);
  startView({ filter: byId("filter").value, q: byId("search").value.trim() });
}

function chooseView({ filter, q }) {
  byId("filter").value = filter;
  byId("search").value = q;
  startChosenView();
}

// A choice made by mouse or touch gives the keys back to the record; by keyboard, one may still be choosing.
let isPointing = false;
byId("filter").addEventListener("pointerdown", () => {
  isPointing = true;
  refreshOverview();
});
byId("filter").addEventListener("keydown", (event) => {
  isPointing = false;
  if (event.key === "Enter") byId("filter").blur();
});
byId("filter").addEventListener("change", () => {
  if (isPointing) byId("filter").blur();
  startChosenView();
});
byId("search").addEventListener("input", () => {
  clearTimeout(searchTimer);
  searchTimer = setTimeout(startChosenView, SEARCH_PAUSE_MS);
});
byId("search").addEventListener("keydown", (event) => event.key === "Enter" && byId("search").blur());

// The desk lies over the page: as much room as it takes is kept free below the record.
new ResizeObserver(() => {
  document.documentElement.style.setProperty("--desk-height", `${byId("desk").offsetHeight}px`);
}).observe(byId("desk"));

window.addEventListener("online", () => outbox.send());
window.addEventListener("pagehide", commitNote);
window.addEventListener("beforeunload", (event) => {
  if (keeper.unkept.size && outbox.pending().length) event.preventDefault();
});

// ---- start -------------------------------------------------------------------------------------------------------

for (const { event } of outbox.pending()) {
  const { score, is_skipped, notes, severity } = event;
  states.set(event.record_id, { score, is_skipped, notes, severity, status: statusOf(event) });
}
outbox.send();
await refreshOverview();
byId("search").value = view.q;
await startView(view, keeper.get("at"));
