// What this browser keeps until the server has it: one entry per change, so that several tabs never overwrite each other.

import { post, Refused, Unreachable } from "./server.js";

const BATCH = 20;
const FIRST_WAIT_MS = 1000;
const LONGEST_WAIT_MS = 15000;

export class Keeper {
  constructor(storeId, annotator) {
    this.prefix = `caliber:${storeId}:${annotator}:`;
    this.unkept = new Map(); // used where the browser refuses to store
    this.count = 0;
  }

  set(name, value) {
    const text = JSON.stringify(value);
    try {
      localStorage.setItem(this.prefix + name, text);
      this.unkept.delete(name);
    } catch {
      this.unkept.set(name, text);
    }
  }

  get(name, otherwise = null) {
    let text = this.unkept.get(name) ?? null;
    try {
      text ??= localStorage.getItem(this.prefix + name);
      return text === null ? otherwise : JSON.parse(text);
    } catch {
      return otherwise;
    }
  }

  remove(name) {
    this.unkept.delete(name);
    try {
      localStorage.removeItem(this.prefix + name);
    } catch {
      // nothing was kept there
    }
  }

  names(start) {
    let kept = [];
    try {
      kept = Object.keys(localStorage).filter((key) => key.startsWith(this.prefix + start));
    } catch {
      // nothing was kept there
    }
    const own = kept.map((key) => key.slice(this.prefix.length));
    return [...new Set([...own, ...[...this.unkept.keys()].filter((name) => name.startsWith(start))])].sort();
  }
}

export class Outbox {
  constructor(keeper, annotator, tell) {
    this.keeper = keeper;
    this.annotator = annotator;
    this.tell = tell;
    this.sending = null;
    this.waitMs = FIRST_WAIT_MS;
    this.timer = null;
    this.n = 0;
    this.settledAt = new Map(); // by record id, when the server last told that it has a change
  }

  pending() {
    return this.keeper.names("out:").map((name) => ({ name, event: this.keeper.get(name) }));
  }

  refused() {
    return this.keeper.names("refused:").map((name) => this.keeper.get(name));
  }

  // The records of which an answer of the server, asked for at that time, may not hold the last change.
  changedSince(time) {
    const waiting = this.pending().map(({ event }) => event.record_id);
    const settled = [...this.settledAt].filter(([, at]) => at >= time).map(([id]) => id);
    return new Set([...waiting, ...settled]);
  }

  add(event) {
    const names = this.keeper.names("out:");
    const last = names.length ? parseInt(names.at(-1).split(":")[1], 36) : 0;
    const time = Math.max(Date.now(), last); // in order even where the clock goes back
    const place = `${time.toString(36).padStart(10, "0")}:${String(this.n++).padStart(6, "0")}`;
    this.keeper.set(`out:${place}:${event.event_id.slice(0, 8)}`, event);
    this.send();
  }

  // Resolves once all is sent, or the server is found to be away.
  send() {
    this.sending ??= this.sendAll().finally(() => (this.sending = null));
    return this.sending;
  }

  async sendAll() {
    clearTimeout(this.timer);
    try {
      for (let batch = this.pending().slice(0, BATCH); batch.length; batch = this.pending().slice(0, BATCH)) {
        this.tell("sending");
        const answer = await post("/api/events", {
          annotator: this.annotator,
          events: batch.map((entry) => entry.event),
        });
        this.settle(batch, answer);
        this.waitMs = FIRST_WAIT_MS;
      }
      this.tell("saved");
    } catch (error) {
      this.tell(error instanceof Refused ? "refused" : "offline", error);
      this.timer = setTimeout(() => this.send(), this.waitMs);
      this.waitMs = Math.min(this.waitMs * 2, LONGEST_WAIT_MS);
    }
  }

  settle(batch, answer) {
    const results = new Map(answer.results.map((result) => [result.event_id, result]));
    if (!batch.some(({ event }) => results.has(event.event_id))) throw new Unreachable("the answer names no change");
    for (const { name, event } of batch) {
      const result = results.get(event.event_id);
      if (result?.status === "refused") this.keeper.set(`refused:${name}`, { event, reason: result.reason });
      if (!result) continue;
      this.keeper.remove(name);
      this.settledAt.set(event.record_id, performance.now());
    }
    this.tell("progress", answer.progress);
  }
}
