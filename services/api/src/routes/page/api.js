
// ---- the API: read by fetch, with the token that the reader typed in --------------------------------------------------

class Refused extends Error {
  constructor(status, problem) {
    super(problem.detail || `the API answers ${status}`);
    this.status = status;
  }
}

async function ask(path, stop, headers = {}) {
  const token = sessionStorage.getItem(KEY);
  if (token) headers = { ...headers, Authorization: `Bearer ${token}` };
  const answer = await fetch(path, { headers, signal: stop, cache: "no-store", credentials: "omit" });
  if (answer.ok) return answer;
  throw new Refused(answer.status, await answer.json().catch(() => ({})));
}

const get = async (path, stop) => (await ask(path, stop)).json();

async function rounds(id, stop) {
  const all = [];
  let cursor = "";
  for (let page = 0; page < ROUNDS_PAGES; page++) {
    const found = await get(`/v1/jobs/${id}/rounds?limit=500${cursor}`, stop);
    all.push(...found.items);
    if (!found.next_cursor) break;
    cursor = `&cursor=${found.next_cursor}`;
  }
  return all;
}

// Server-sent events by fetch: the browser's own reader cannot show a token.
async function follow(id, stop, heard) {
  let last = null, over = false;
  while (!stop.aborted) {
    try {
      const answer = await ask(`/v1/jobs/${id}/events`, stop, last ? { "Last-Event-ID": last } : {});
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let rest = "";
      for (;;) {
        const { value, done } = await reader.read();
        if (done) break;
        const blocks = (rest + value).split("\n\n");
        rest = blocks.pop();
        for (const block of blocks) {
          const event = { data: "" };
          for (const line of block.split("\n")) {
            const colon = line.indexOf(":");
            if (colon > 0) event[line.slice(0, colon)] = line.slice(colon + 1).trimStart();
          }
          if (event.id) last = event.id;
          if (event.data) heard(event.event, JSON.parse(event.data));
          over ||= LAST.includes(event.event);
        }
      }
      // A service that was restarted ends its streams too.
      if (over) return;
    } catch (error) {
      if (stop.aborted) return;
      if (error instanceof Refused && error.status < 500) return trouble(error);
    }
    await pause(RETRY_MS, stop);
  }
}

const pause = (ms, stop) => new Promise(done => {
  const timer = setTimeout(done, ms);
  stop.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
});
